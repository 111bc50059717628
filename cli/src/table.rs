//! Tables without borders.

use comfy_table::{ContentArrangement, Table};

use crate::failure::Failure;
use crate::output::{is_read_by_person, print};
use crate::text::one_line;

/// Writes rows below a header; fitted to the terminal where there is one.
pub(crate) fn print_table<const N: usize>(header: [&str; N], rows: Vec<[String; N]>) -> Result<(), Failure> {
    print(&render(header, rows, is_read_by_person()))
}

/// The same as lines for a screen that cuts them itself.
pub(crate) fn table_lines<const N: usize>(header: [&str; N], rows: Vec<[String; N]>) -> Vec<String> {
    render(header, rows, false).lines().map(str::to_owned).collect()
}

fn render<const N: usize>(header: [&str; N], rows: Vec<[String; N]>, fitted: bool) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    if fitted {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    table.set_header(header);
    for row in rows {
        table.add_row(row.map(|cell| one_line(&cell)));
    }
    let mut text = String::new();
    for line in table.to_string().lines() {
        let line = line.trim_end();
        text.push_str(line.strip_prefix(' ').unwrap_or(line));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_cells_cannot_break_the_line() {
        let rows = vec![["j1".to_owned(), "running".to_owned()], ["long-name".to_owned(), "a\nb".to_owned()]];
        let text = render(["ID", "PHASE"], rows, false);
        assert_eq!(text, "ID         PHASE\nj1         running\nlong-name  a\\nb\n");
    }
}
