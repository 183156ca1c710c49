//! Every submission of the corpus gets its expected verdict, the cheating ones included.

use std::sync::Mutex;
use std::thread;

use crate::support::{corpus, corpus_tests, job, judge};

#[test]
fn every_submission_gets_its_expected_verdict() {
    let (test, submissions) = (judge(), corpus());
    let wrong = Mutex::new(vec![]);
    let next = Mutex::new(submissions.iter());
    let (next, wrong, test) = (&next, &wrong, &test);
    let work = move |slot| {
        loop {
            let Some(one) = next.lock().unwrap().next() else { return };
            let id = format!("corpus-{}", one.name.replace('.', "-"));
            let result = test.judge.judge(&job(&id, one.program.clone(), corpus_tests()), slot, |_| {}).unwrap();
            println!("{:<20} {:<28} {:.3} s", one.name, result.summary, result.usage.cpu_seconds);
            if result.summary != one.expected {
                wrong.lock().unwrap().push(format!("{}: {}, expected {}", one.name, result.summary, one.expected));
            }
            assert!(result.unenforced.is_empty(), "{:?}", result.unenforced);
        }
    };
    thread::scope(|scope| (0..2).for_each(|slot| drop(scope.spawn(move || work(slot)))));
    assert!(submissions.len() > 20 && submissions.iter().any(|one| one.name.starts_with("cheat-")));
    assert!(wrong.lock().unwrap().is_empty(), "{:#?}", wrong.lock().unwrap());
}
