//! A directory of results, one file for each job. The first verdict of a job is recorded, and no later one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::failure::Failure;
use super::job::is_id;
use super::report::JobResult;

/// Whether a result was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    New,
    /// The job has a verdict already.
    Already,
}

#[derive(Debug)]
pub struct Store {
    results: PathBuf,
    /// An empty file for each job that was accepted.
    accepted: PathBuf,
    /// Messages of jobs that no worker could judge.
    dead: PathBuf,
}

impl Store {
    /// Opens a directory, or creates it.
    pub fn open(directory: &Path) -> Result<Self, Failure> {
        let [results, accepted, dead] = ["results", "accepted", "dead"].map(|name| directory.join(name));
        for path in [&results, &accepted, &dead] {
            fs::create_dir_all(path).map_err(Failure::to(format!("create {}", path.display())))?;
        }
        Ok(Self { results, accepted, dead })
    }

    /// Records a result. It is on disk when this returns. A verdict replaces a failure of the judge, and nothing else is
    /// replaced.
    pub fn record(&self, result: &JobResult) -> Result<Recorded, Failure> {
        if !is_id(&result.id) {
            return Err(Failure::Job(format!("{:?} is not the ID of a job", result.id)));
        }
        let path = file(&self.results, &result.id);
        let failed = || Failure::to(format!("write {}", path.display()));
        let json = serde_json::to_vec(result).map_err(Failure::to("store a result"))?;
        let new = write_temporary(&self.results, &json).map_err(failed())?;
        match new.persist_noclobber(&path) {
            Ok(_) => {}
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                // What cannot be read is replaced, too.
                let stored = self.result(&result.id).ok().flatten();
                if stored.is_some_and(|stored| stored.has_verdict() || !result.has_verdict()) {
                    return Ok(Recorded::Already);
                }
                error.file.persist(&path).map_err(io::Error::from).map_err(failed())?;
            }
            Err(error) => return Err(failed()(error.error)),
        }
        File::open(&self.results).and_then(|directory| directory.sync_all()).map_err(failed())?;
        Ok(Recorded::New)
    }

    /// Removes and returns the result of a job that has no verdict, since it is judged again.
    pub fn withdraw_failure(&self, id: &str) -> Result<Option<JobResult>, Failure> {
        let Some(failure) = self.result(id)?.filter(|result| !result.has_verdict()) else { return Ok(None) };
        let path = file(&self.results, id);
        fs::remove_file(&path).map_err(Failure::to(format!("remove {}", path.display())))?;
        Ok(Some(failure))
    }

    /// Returns the result of a job, if it has one.
    pub fn result(&self, id: &str) -> Result<Option<JobResult>, Failure> {
        if !is_id(id) {
            return Ok(None);
        }
        let path = file(&self.results, id);
        match fs::read(&path) {
            Ok(json) => {
                serde_json::from_slice(&json).map(Some).map_err(Failure::to(format!("read {}", path.display())))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::to(format!("read {}", path.display()))(error)),
        }
    }

    /// Notes that a job was accepted.
    pub fn accept(&self, id: &str) -> Result<(), Failure> {
        let path = file(&self.accepted, id);
        File::create(&path).map(drop).map_err(Failure::to(format!("create {}", path.display())))
    }

    pub fn is_accepted(&self, id: &str) -> bool {
        is_id(id) && file(&self.accepted, id).exists()
    }

    /// Returns the IDs of the accepted jobs that have no result.
    pub fn unfinished(&self) -> Vec<String> {
        let ids = fs::read_dir(&self.accepted).into_iter().flatten().flatten();
        let ids = ids.filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".json")?.to_owned()));
        ids.filter(|id| is_id(id) && !file(&self.results, id).exists()).collect()
    }

    /// Keeps the message of a job that no worker could judge, for the operator.
    pub fn keep_dead(&self, name: &str, message: &[u8]) -> Result<(), Failure> {
        let path = file(&self.dead, name);
        let written = write_temporary(&self.dead, message).and_then(|new| Ok(new.persist(&path).map(drop)?));
        written.map_err(Failure::to(format!("write {}", path.display())))
    }

    /// Returns the number of results.
    pub fn count(&self) -> usize {
        let names = fs::read_dir(&self.results).into_iter().flatten().flatten();
        names.filter(|entry| entry.path().extension().is_some_and(|kind| kind == "json")).count()
    }
}

fn file(directory: &Path, id: &str) -> PathBuf {
    directory.join(format!("{id}.json"))
}

fn write_temporary(directory: &Path, bytes: &[u8]) -> io::Result<NamedTempFile> {
    let mut file = NamedTempFile::new_in(directory)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::verdict::Verdict;

    #[test]
    fn a_job_is_recorded_once_and_a_verdict_replaces_a_failure() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let failure = JobResult::failed("a", &Failure::Worker("lost".into()));
        let mut verdict = JobResult::judged("a", None, vec![]);
        assert_eq!(store.result("a").unwrap().map(|result| result.verdict), None);
        assert_eq!(store.record(&failure).unwrap(), Recorded::New);
        assert_eq!(store.record(&failure).unwrap(), Recorded::Already);
        store.withdraw_failure("a").unwrap();
        assert!(store.result("a").unwrap().is_none());
        assert_eq!(store.record(&failure).unwrap(), Recorded::New);
        assert_eq!(store.record(&verdict).unwrap(), Recorded::New);
        store.withdraw_failure("a").unwrap();
        verdict.verdict = Verdict::WrongAnswer;
        assert_eq!(store.record(&verdict).unwrap(), Recorded::Already);
        assert_eq!(store.record(&failure).unwrap(), Recorded::Already);
        assert_eq!(store.result("a").unwrap().unwrap().verdict, Verdict::Accepted);
        assert_eq!(store.count(), 1);
    }

    #[test]
    fn files_that_are_no_results_are_replaced_or_ignored() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        for name in ["not an ID", "a", ".hidden"] {
            File::create(directory.path().join(format!("accepted/{name}.json"))).unwrap();
        }
        assert_eq!(store.unfinished(), ["a"]);
        fs::write(directory.path().join("results/a.json"), "{").unwrap();
        assert!(store.result("a").is_err());
        let verdict = JobResult::judged("a", None, vec![]);
        assert_eq!(store.record(&verdict).unwrap(), Recorded::New);
        assert_eq!(store.result("a").unwrap().unwrap().verdict, Verdict::Accepted);
    }

    #[test]
    fn ids_are_not_paths() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        for id in ["", ".", "..", "../a", "a/b", "a\0", "ä"] {
            assert!(store.record(&JobResult::judged(id, None, vec![])).is_err(), "{id:?}");
            assert!(store.result(id).unwrap().is_none() && !store.is_accepted(id));
        }
    }
}
