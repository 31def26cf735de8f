//! The blocking half: one statement on one fresh connection, start to end.

use bytes::Bytes;
use tokio::sync::mpsc::{Receiver, Sender};

use crate::auth::Rights;
use crate::chdb::{Connection, Progress};
use crate::engine::Engine;
use crate::exception::{self, Exception};
use crate::formats;
use crate::request::Call;
use crate::values::ValuesWatch;
use crate::{native, sql};

/// What is to be done.
pub enum Job {
    /// Any statement without data of its own.
    Statement(Vec<u8>),
    /// An INSERT whose data follows.
    Insert {
        /// The statement up to FORMAT or VALUES.
        head: Vec<u8>,
        /// The data's format.
        format: String,
        /// The data.
        data: Receiver<Data>,
    },
}

/// Data on its way to an INSERT. If it stops without [`Data::End`] the sender
/// is gone, and nothing is inserted.
pub enum Data {
    /// The next piece.
    Piece(Bytes),
    /// The data is complete.
    End,
}

/// What comes back: one head and then pieces, or a failure at any point.
pub enum Output {
    /// The statement has begun to answer, or ended.
    Head {
        /// The format of the pieces.
        format: String,
        /// What is known by now; all of it if the statement has ended.
        progress: Progress,
    },
    /// The next piece, packed if the call asked for that.
    Piece(Bytes),
    /// The statement failed; nothing follows.
    Failed(Exception),
}

/// Nobody waits for the answer any more.
struct Gone;

enum Stop {
    Failed(Exception),
    Gone,
}

impl<E: Into<Exception>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl From<Gone> for Stop {
    fn from(Gone: Gone) -> Self {
        Self::Gone
    }
}

/// Does a job and sends its output. Blocks.
pub fn run(engine: &Engine, call: &Call, rights: Rights, job: Job, output: Sender<Output>) {
    let work = Work {
        call,
        rights,
        output,
    };
    let done = work.session(engine).and_then(|connection| match job {
        Job::Statement(text) => work.statement(connection, &text),
        Job::Insert { head, format, data } => work.insert(connection, &head, &format, data),
    });
    if let Err(Stop::Failed(exception)) = done {
        // Whoever asked may be gone, which is no concern of the engine.
        work.send(Output::Failed(exception)).ok();
    }
}

struct Work<'a> {
    call: &'a Call,
    rights: Rights,
    output: Sender<Output>,
}

impl Work<'_> {
    fn send(&self, output: Output) -> Result<(), Gone> {
        self.output.blocking_send(output).map_err(|_| Gone)
    }

    fn send_head(&self, format: &str, progress: Progress) -> Result<(), Gone> {
        self.send(Output::Head {
            format: format.to_owned(),
            progress,
        })
    }

    fn send_piece(&self, piece: Bytes) -> Result<(), Gone> {
        if piece.is_empty() {
            return Ok(());
        }
        self.send(Output::Piece(if self.call.compress {
            native::encode(&piece)
        } else {
            piece
        }))
    }

    /// A connection with the call's database and settings.
    fn session(&self, engine: &Engine) -> Result<Connection, Stop> {
        let mut connection = engine
            .connect()
            .map_err(|error| Exception::new(exception::LOGICAL_ERROR, error))?;
        if let Some(database) = &self.call.database {
            connection.run(
                format!("USE {}", quoted(database, '`')).as_bytes(),
                "Null",
                &[],
            )?;
        }
        let (guards, settings): (Vec<_>, Vec<_>) = self
            .call
            .settings
            .iter()
            .partition(|(name, _)| name == "readonly");
        if !settings.is_empty() {
            connection.run(set(&settings)?.as_bytes(), "Null", &[])?;
        }
        // The engine's own guard behind `refuse`, last since it forbids to be set
        // twice. 1 also forbids the table functions that read files and URLs; 2
        // is what ClickHouse takes for GET. The sender may ask for more.
        let asks = |level: &str| guards.iter().any(|(_, value)| value == level);
        let guard = if self.rights == Rights::ReadOnly || asks("1") {
            Some("SET readonly = 1")
        } else if self.call.is_get || asks("2") {
            Some("SET readonly = 2")
        } else {
            None
        };
        if let Some(guard) = guard {
            connection.run(guard.as_bytes(), "Null", &[])?;
        }
        Ok(connection)
    }

    fn may_write(&self) -> bool {
        self.rights == Rights::Full && !self.call.is_get
    }

    fn statement(&self, mut connection: Connection, text: &[u8]) -> Result<(), Stop> {
        let analysis = connection.classify(text);
        if sql::is_empty(text) {
            return Err(
                Exception::new(exception::SYNTAX_ERROR, "Syntax error: Empty query").into(),
            );
        }
        // Text that does not parse counts as no statement, yet the engine would
        // run the good ones at its beginning.
        if analysis.statements > 1 || (analysis.statements == 0 && sql::is_several(text)) {
            return Err(several().into());
        }
        // What does not parse may go on to be told why.
        if !self.may_write() && !analysis.read_only && analysis.statements > 0 {
            return Err(self.refuse().into());
        }
        let format = sql::output_format(text).unwrap_or_else(|| self.call.default_format.clone());
        let streams =
            analysis.read_only && !self.call.wait_end_of_query && !self.is_one_document(text);
        if let Some(joint) = formats::joint(&format).filter(|_| streams)
            && self.stream(&mut connection, text, &format, joint)?
        {
            return Ok(());
        }
        let answer = connection.run(text, &self.call.default_format, &self.call.params)?;
        self.send_head(&format, answer.progress())?;
        self.send_piece(answer.into_bytes())?;
        Ok(())
    }

    /// Streams a SELECT. False if the statement is of a kind that cannot be
    /// streamed and did not begin.
    fn stream(
        &self,
        connection: &mut Connection,
        text: &[u8],
        format: &str,
        joint: formats::Joint,
    ) -> Result<bool, Stop> {
        let mut select = match connection.select(text, &self.call.default_format, &self.call.params)
        {
            Ok(select) => select,
            Err(error) if error.0.contains("Streaming query is not supported") => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let first = select.next_piece()?;
        let progress = first
            .as_ref()
            .map(|piece| piece.progress())
            .unwrap_or_default();
        self.send_head(format, progress)?;
        let Some(first) = first.map(|piece| piece.into_bytes()) else {
            return Ok(true);
        };
        let header = first.slice(..joint.header_len(&first));
        self.send_piece(first)?;
        while let Some(piece) = select.next_piece()? {
            let piece = piece.into_bytes();
            let skip = if piece.starts_with(&header) {
                header.len()
            } else {
                0
            };
            self.send_piece(piece.slice(skip..))?;
        }
        Ok(true)
    }

    fn insert(
        &self,
        mut connection: Connection,
        head: &[u8],
        format: &str,
        mut data: Receiver<Data>,
    ) -> Result<(), Stop> {
        if !self.may_write() {
            return Err(self.refuse().into());
        }
        let mut insert = connection.insert(head, format, &self.call.params)?;
        let mut watch = format
            .eq_ignore_ascii_case("values")
            .then(ValuesWatch::default);
        loop {
            match data.blocking_recv() {
                Some(Data::Piece(piece)) => {
                    if let Some(watch) = &mut watch {
                        watch.push(&piece);
                    }
                    insert.append(&piece)?;
                }
                Some(Data::End) => break,
                // Dropping `insert` cancels it.
                None => return Err(Stop::Gone),
            }
        }
        if watch.is_some_and(|watch| watch.is_several()) {
            return Err(several().into());
        }
        let progress = insert.finish()?;
        self.send_head(&self.call.default_format, progress)?;
        Ok(())
    }

    fn refuse(&self) -> Exception {
        Exception::new(
            exception::READONLY,
            "Cannot execute query in readonly mode.",
        )
    }

    /// Totals, extremes and one setting for JSON make one document of formats
    /// whose pieces otherwise just follow one another.
    fn is_one_document(&self, text: &[u8]) -> bool {
        ["totals", "extremes", "output_format_json_array_of_rows"]
            .into_iter()
            .any(|word| {
                sql::has_word(text, word) || self.call.settings.iter().any(|(name, _)| name == word)
            })
    }
}

fn several() -> Exception {
    Exception::new(
        exception::SYNTAX_ERROR,
        "Syntax error: Multi-statements are not allowed",
    )
}

/// One SET for all settings, so that a wrong one is told with its own error.
fn set(settings: &[&(String, String)]) -> Result<String, Exception> {
    let mut parts = Vec::with_capacity(settings.len());
    for (name, value) in settings {
        let is_name = !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_.".contains(&byte));
        if !is_name {
            return Err(Exception::new(
                exception::BAD_ARGUMENTS,
                format!("{name:?} is no name of a setting"),
            ));
        }
        parts.push(format!("{name} = {}", quoted(value, '\'')));
    }
    Ok(format!("SET {}", parts.join(", ")))
}

fn quoted(text: &str, quote: char) -> String {
    let mut quoted = String::from(quote);
    for character in text.chars() {
        if character == quote || character == '\\' {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted.push(quote);
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_cannot_break_out_of_their_quotes() {
        let settings = ("max_threads".to_owned(), "1', readonly = '0\\".to_owned());
        assert_eq!(
            set(&[&settings]).unwrap(),
            r"SET max_threads = '1\', readonly = \'0\\'"
        );
        assert!(set(&[&("a = 1, b".to_owned(), String::new())]).is_err());
    }
}
