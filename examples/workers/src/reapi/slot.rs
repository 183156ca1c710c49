//! The slots of a worker. Each runs one action at a time, on CPUs of its own.

use rustix::thread::{CpuSet, sched_getaffinity};

use super::failure::{Failure, Tried};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    pub number: usize,
    pub cpus: Vec<usize>,
}

impl Slot {
    /// Returns the CPUs as a list for cgroups.
    pub fn cpu_list(&self) -> String {
        self.cpus.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
    }
}

/// Divides the CPUs of the worker among slots. If there are more slots than CPUs, slots share them.
pub fn divide(count: usize) -> Result<Vec<Slot>, Failure> {
    let set = sched_getaffinity(None).tried("read the CPUs of the worker")?;
    let cpus: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect();
    Ok(divide_cpus(count, &cpus))
}

fn divide_cpus(count: usize, cpus: &[usize]) -> Vec<Slot> {
    let slot = |number: usize| {
        let each = (cpus.len() / count).max(1);
        let rest = if count < cpus.len() { cpus.len() % count } else { 0 };
        // The first ones have one more.
        let first = number * each + number.min(rest);
        let length = each + usize::from(number < rest);
        let own = (first..first + length).map(|index| cpus[index % cpus.len()]).collect();
        Slot { number, cpus: own }
    };
    (0..count).map(slot).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cpu_belongs_to_one_slot_if_there_are_enough() {
        let lists =
            |count, cpus: &[usize]| -> Vec<String> { divide_cpus(count, cpus).iter().map(Slot::cpu_list).collect() };
        assert_eq!(lists(1, &[0, 1, 4]), ["0,1,4"]);
        assert_eq!(lists(2, &[0, 1, 4]), ["0,1", "4"]);
        assert_eq!(lists(3, &[0, 1, 2, 3, 4, 5, 6, 7]), ["0,1,2", "3,4,5", "6,7"]);
        assert_eq!(lists(4, &[0, 1]), ["0", "1", "0", "1"]);
    }
}
