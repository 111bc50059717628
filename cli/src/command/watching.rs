//! Showing something again and again, as it changes.

use std::time::Duration;

use runtime::backoff::Backoff;

use crate::failure::{Exit, Failure};
use crate::output::{is_read_by_person, print_line, say};
use crate::screen::Screen;
use crate::text::one_line;

/// How often the controller is asked; half of what a calm screen bears.
const EVERY: Duration = Duration::from_secs(1);

/// What there is to see at one moment.
#[derive(Debug, Default)]
pub(crate) struct Frame {
    /// For a terminal: drawn in place of the frame before.
    pub(crate) screen: Vec<String>,
    /// For anything else: each is written once it differs from all of the frame before.
    pub(crate) records: Vec<String>,
    /// Whether nothing can change any more.
    pub(crate) over: bool,
}

/// Shows what `look` sees until it is over or Ctrl-C is pressed. With `drawn`
/// and a terminal it is drawn in place, otherwise written record by record.
pub(crate) async fn watch(drawn: bool, mut look: impl AsyncFnMut() -> Result<Frame, Failure>) -> Result<(), Failure> {
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    let mut shown = Shown { screen: (drawn && is_read_by_person()).then(Screen::default), ..Shown::default() };
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(5));
    loop {
        let turn = async {
            let over = match look().await {
                Ok(frame) => {
                    backoff.reset();
                    shown.frame(frame)?
                }
                Err(Failure::Told { exit: Exit::Unreachable, message, .. }) if shown.began => shown.lost(&message)?,
                Err(failure) => return Err(failure),
            };
            let pause = if shown.lost { backoff.pause() } else { EVERY };
            if !over {
                tokio::time::sleep(pause).await;
            }
            Ok(over)
        };
        let over = tokio::select! {
            biased; // Ctrl-C wins over news
            _ = &mut interrupted => return Err(Failure::Said(Exit::Interrupted)),
            over = turn => over?,
        };
        if over {
            return Ok(());
        }
    }
}

#[derive(Debug, Default)]
struct Shown {
    screen: Option<Screen>,
    last: Frame,
    /// Whether anything was seen yet: a controller that never answered is no interruption.
    began: bool,
    /// Whether the controller does not answer and that was said.
    lost: bool,
}

impl Shown {
    fn frame(&mut self, frame: Frame) -> Result<bool, Failure> {
        if std::mem::take(&mut self.lost) && self.screen.is_none() {
            say("controller reached again");
        }
        self.began = true;
        match &mut self.screen {
            Some(screen) => screen.draw(&frame.screen)?,
            None => {
                let new = frame.records.iter().filter(|record| !self.last.records.contains(record));
                new.into_iter().try_for_each(|record| print_line(record))?;
            }
        }
        self.last = frame;
        Ok(self.last.over)
    }

    fn lost(&mut self, message: &str) -> Result<bool, Failure> {
        let before = std::mem::replace(&mut self.lost, true);
        match &mut self.screen {
            Some(screen) => {
                // On top, where a low screen does not cut it off.
                let mut lines = vec![format!("retrying: {}", one_line(message))];
                lines.extend(self.last.screen.iter().cloned());
                screen.draw(&lines)?;
            }
            None if !before => say("controller unreachable, retrying"),
            None => {}
        }
        Ok(false)
    }
}
