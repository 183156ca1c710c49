//! Threads that take work from a queue, each for a CPU of its own, and a bar that shows how much is done.

use std::sync::Mutex;
use std::{fs, thread};

use indicatif::{ProgressBar, ProgressStyle};

use crate::Failure;

/// How much is done at a time, if nobody says.
const WORKERS: usize = 2;

/// The CPU of each worker: one of its own if there are enough that this process may run on, which there are by default.
pub fn cpus(workers: Option<u32>) -> Result<Vec<u32>, Failure> {
    let status = fs::read_to_string("/proc/self/status")?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let ranges = list.ok_or("/proc/self/status does not say on which CPUs this process may run")?.trim().split(',');
    let mut cpus = vec![];
    for range in ranges {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        cpus.extend(first.parse::<u32>()?..=last.parse()?);
    }
    let workers = workers.map_or(WORKERS.min(cpus.len()), |workers| workers as usize);
    Ok(cpus.into_iter().cycle().take(workers).collect())
}

/// Does some work for each item, with the CPU that it is to be done on. The results are in the order of the items. After
/// an error no more work is begun.
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
    ProgressStyle::with_template("{msg:10} {bar:40} {pos}/{len} {elapsed}").expect("the template is right")
}
