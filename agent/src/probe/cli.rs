//! `qctl-agent probe`.

use std::io::{self, Write as _};
use std::path::PathBuf;

use super::outputs::Outputs;
use super::report::Report;
use super::source::Source;
use super::{record, show};

/// What to probe, and how it is written.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Read the tool's outputs from a directory instead of asking it
    ///
    /// One file per command line, blanks as `_`: npu-smi_info.txt,
    /// npu-smi_info_-t_health_-i_0_-c_0.txt. A file that is not there means
    /// that the tool failed.
    #[arg(long, value_name = "DIR", conflicts_with = "record")]
    recording: Option<PathBuf>,
    /// Write the tool's outputs to a new directory as well
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,
    /// How the report is written
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// How a report is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// Why a probe told nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The recording is not there.
    #[error("there is no recording `{}`", .0.display())]
    NoRecording(PathBuf),
    /// The recording cannot be read.
    #[error("the recording `{}` cannot be read", path.display())]
    Recording {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The outputs could not be kept.
    #[error(transparent)]
    Record(#[from] record::Error),
    /// The report could not be written.
    #[error("the report could not be written")]
    Write(#[source] io::Error),
    /// No NPU was seen, and why.
    #[error("no NPU was seen: {0}")]
    Nothing(String),
}

impl Error {
    /// The next thing to try.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoRecording(_) | Self::Recording { .. } => Some("`--record DIR` makes one on a host with NPUs"),
            Self::Record(error) => error.hint(),
            Self::Write(_) => None,
            Self::Nothing(_) => Some("run `npu-smi info` by hand on this host"),
        }
    }

    /// 5 for what is not there, 1 for what failed.
    #[must_use]
    pub fn exit(&self) -> u8 {
        match self {
            Self::NoRecording(_) => 5,
            Self::Recording { .. } | Self::Record(_) | Self::Write(_) | Self::Nothing(_) => 1,
        }
    }
}

/// Probes, and prints what was understood.
///
/// # Errors
///
/// [`Error`]; of a tool that failed all that is known is printed before.
pub async fn run(args: &Args) -> Result<(), Error> {
    let outputs = heard(args).await?;
    let report = super::report(&outputs);
    print(args.output, &report).map_err(Error::Write)?;
    if let Some(dir) = &args.record {
        record::write(dir, &outputs)?;
    }
    match report.error {
        Some(error) if report.npus.is_empty() => Err(Error::Nothing(error)),
        Some(_) | None => Ok(()),
    }
}

async fn heard(args: &Args) -> Result<Outputs, Error> {
    if let Some(dir) = &args.record {
        record::check(dir)?;
    }
    let Some(dir) = &args.recording else {
        return Source::Host.outputs().await.map_err(Error::Write);
    };
    Source::Recording(dir.clone()).outputs().await.map_err(|source| {
        let is_missing = source.kind() == io::ErrorKind::NotFound;
        if is_missing { Error::NoRecording(dir.clone()) } else { Error::Recording { path: dir.clone(), source } }
    })
}

fn print(format: Format, report: &Report) -> io::Result<()> {
    let text = match format {
        Format::Table => show::table(report),
        Format::Json => show::json(report).map_err(io::Error::other)? + "\n",
    };
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    if format == Format::Table {
        let mut stderr = io::stderr().lock();
        for note in show::notes(report) {
            // What cannot be told there cannot be told at all.
            let _ = writeln!(stderr, "{note}");
        }
    }
    Ok(())
}
