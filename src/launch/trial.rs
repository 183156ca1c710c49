//! A program that tries things: started as a helper is, it tells what each of its calls has stored, and ends.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};

use super::affinity::{Kept, Processors};
use super::image::{self, Image};
use super::process::{Process, own_pidfd};
use super::reports::{Channel, failure_of};
use super::{Ends, gaps, idmap, interpreter, layout::Layout, refused};
use crate::error::{Error, Result};
use crate::plan::{IdMaps, Input, Part, Program, Report, stub};

/// Milliseconds that a trial may take.
const PATIENCE: u16 = 2000;

/// Runs a program of trials in a child. The words are those of its slots from the first of its own on; a file descriptor is
/// above 0. `mapping` is the id mapping that it may ask for.
pub(crate) fn run(program: &Program, mapping: Option<&OwnedFd>) -> Result<Vec<u64>> {
    let (channel, report) = Channel::new()?;
    let mut ends = Ends { report: report.as_raw_fd(), ..Ends::default() };
    let input = |input: Input, ends: &Ends| match input {
        Input::Value(value) => value,
        Input::GapFirst(gap) => ends.gap(gap).0,
        Input::GapLast(gap) => ends.gap(gap).1,
        Input::Report => ends.report as u64,
        Input::Image => ends.image as u64,
        Input::IdMapping(_) => mapping.map_or(u64::MAX, |fd| fd.as_raw_fd() as u64),
        _ => u64::MAX,
    };
    let mut image = Image::new().map_err(image::refused)?;
    let written = image.write(&layout(program, Part::Helper, &|wanted| input(wanted, &ends)));
    written.map_err(image::refused)?;
    ends.image = image.executable();
    let kept = program.inputs().filter(|input| input.is_descriptor()).map(|kept| input(kept, &ends));
    ends.gaps = gaps(kept.chain([ends.image as u64]).collect());
    let stub = stub(program);
    let mut memory = layout(&stub, Part::Stub, &|wanted| input(wanted, &ends)).in_place();
    let kept = Kept::on_one_of(Processors::of_thread());
    let cloned = interpreter::clone(0, &mut memory).map_err(|errno| refused("starting a trial", errno))?;
    drop(kept);
    let mut process = Process::new(cloned, memory);
    drop((report, image));
    let said = hear(&channel, program.own_words());
    if said.is_ok() {
        process.wait().map_err(Error::host("waiting for a trial"))?;
    }
    match said? {
        Report::Tried(words) => Ok(words),
        Report::Failed { part, call, errno, .. } => {
            Err(failure_of(if part == Part::Stub { &stub } else { program }, call, errno))
        }
        _ => Err(Error::died("reading what a trial says")),
    }
}

fn layout<'a>(program: &'a Program, part: Part, resolve: &'a dyn Fn(Input) -> u64) -> Layout<'a> {
    Layout { program, tag: part.tag(), fault: None, resolve }
}

fn hear(channel: &Channel, words: usize) -> Result<Report> {
    let died = || Error::died("trying what this host can do");
    let mut fds = [PollFd::new(channel.as_fd(), PollFlags::POLLIN)];
    let ready = loop {
        match poll(&mut fds, PATIENCE) {
            Err(Errno::EINTR) => {}
            other => break other.map_err(Error::host("waiting for a trial"))?,
        }
    };
    if ready == 0 {
        return Err(died());
    }
    channel.read(8 * words)?.ok_or_else(died)
}

/// Whether a memfd can be made that may be executed.
pub(crate) fn memfd() -> nix::Result<()> {
    image::memfd().map(drop)
}

/// A user namespace with an id mapping, for a mount.
pub(crate) fn id_mapping(maps: &IdMaps) -> Result<OwnedFd> {
    let host = own_pidfd().map_err(Error::host("opening a pidfd of the host"))?;
    idmap::new_namespace(maps, 0, host.as_fd())
}
