//! `--report`, `--json`: the result of the run as a JSON object.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use stockade::Outcome;

use crate::failure::{CommandFailure, Result};
use crate::new_file::NewFile;

/// The destination of a result. What the option names is for errors.
pub struct Destination {
    what: &'static str,
    path: PathBuf,
    /// Standard output without one.
    file: Option<NewFile>,
}

impl Destination {
    /// Opens the destination; `-` is standard output. A file that cannot be written is an error before the program
    /// runs.
    pub fn open(what: &'static str, path: &Path) -> Result<Self> {
        let file = (path != Path::new("-")).then(|| NewFile::at(path)).transpose();
        let file =
            file.map_err(|error| CommandFailure::on_file(&format!("create the file for the {what}"), path, &error))?;
        Ok(Self { what, path: path.to_owned(), file })
    }

    pub fn is_stdout(&self) -> bool {
        self.file.is_none()
    }

    pub fn write(self, text: &str) -> Result<()> {
        let written = match self.file {
            None => io::stdout().write_all(text.as_bytes()),
            Some(place) => place.begin().and_then(|mut file| {
                // Written to the file itself: an error of `NamedTempFile` would name the temporary file.
                file.as_file_mut().write_all(text.as_bytes())?;
                place.persist(file).map(drop)
            }),
        };
        written.map_err(|error| CommandFailure::on_file(&format!("write the {} to", self.what), &self.path, &error))
    }
}

/// Formats the result of a run as one line.
pub fn line(result: &Result<Outcome>) -> Result<String> {
    let object = match result {
        Ok(outcome) => {
            serde_json::to_value(outcome).map_err(|error| CommandFailure::io("write the outcome", &error.into()))?
        }
        Err(failure) => failure.to_json(),
    };
    Ok(format!("{object}\n"))
}
