//! Worker threads that take jobs from a queue, with a CPU for each thread, and a progress bar.

use std::sync::Mutex;
use std::{fs, thread};

use indicatif::{ProgressBar, ProgressStyle};

use crate::Failure;

/// Default number of workers.
const WORKERS: usize = 2;

/// Returns the CPU of each worker. Workers share CPUs only if there are more workers than CPUs that this process may
/// use.
pub fn cpus(workers: Option<u32>) -> Result<Vec<u32>, Failure> {
    let status = fs::read_to_string("/proc/self/status")?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let ranges = list.ok_or("/proc/self/status has no line Cpus_allowed_list")?.trim().split(',');
    let mut cpus = vec![];
    for range in ranges {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        cpus.extend(first.parse::<u32>()?..=last.parse()?);
    }
    let workers = workers.map_or(WORKERS.min(cpus.len()), |workers| workers as usize);
    Ok(cpus.into_iter().cycle().take(workers).collect())
}

/// Runs a job for each item, with the CPU to use. Results are in the order of the items. After an error no further job
/// is started.
pub fn each<T: Sync, R: Send>(
    cpus: &[u32],
    what: &'static str,
    items: &[T],
    work: impl Fn(&T, u32) -> Result<R, Failure> + Sync,
) -> Result<Vec<R>, Failure> {
    let bar = ProgressBar::new(items.len() as u64).with_message(what).with_style(style());
    let queue = Mutex::new(items.iter().enumerate());
    let take = || queue.lock().unwrap().next();
    let worker = |cpu| {
        let mut done = vec![];
        while let Some((place, item)) = take() {
            match work(item, cpu) {
                Ok(result) => done.push((place, result)),
                Err(error) => {
                    while take().is_some() {}
                    return Err(error);
                }
            }
            bar.inc(1);
        }
        Ok(done)
    };
    let mut done = vec![];
    thread::scope(|scope| {
        let threads: Vec<_> = cpus.iter().map(|&cpu| scope.spawn(move || worker(cpu))).collect();
        for thread in threads {
            done.extend(thread.join().unwrap()?);
        }
        Ok::<(), Failure>(())
    })?;
    bar.finish_and_clear();
    done.sort_by_key(|(place, _)| *place);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{msg:10} {bar:40} {pos}/{len} {elapsed}").expect("the template is valid")
}
