//! Runs the script of a probe in a child, which is started like a helper. It reports the result of each call, and
//! exits.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};

use super::handshake::{Channel, failure_of};
use super::image::{self, Image};
use super::process::{Process, own_pidfd};
use super::{ImageInputs, gaps, idmapped_mount};
use crate::error::{Error, Result};
use crate::plan::{IdMaps, Input, Part, Report, Script, stub};
use crate::sys::affinity::{PinnedCpu, Processors};
use crate::sys::layout::Layout;

/// The time that a probe may take, in milliseconds.
const PROBE_TIMEOUT: u16 = 2000;

/// Runs the script of a probe. Returns the words of its slots, without the reserved ones. A word that is a descriptor
/// is above 0. `mapping` is the user namespace for its mounts.
pub(crate) fn run(script: &Script, mapping: Option<&OwnedFd>) -> Result<Vec<u64>> {
    let (channel, report) = Channel::new()?;
    let mut image_inputs = ImageInputs { report: report.as_raw_fd(), ..ImageInputs::default() };
    let input = |input: Input, image_inputs: &ImageInputs| match input {
        Input::Value(value) => value,
        Input::GapFirst(gap) => image_inputs.gap(gap).0,
        Input::GapLast(gap) => image_inputs.gap(gap).1,
        Input::Report => image_inputs.report as u64,
        Input::Image => image_inputs.image as u64,
        Input::IdMapping(_) => mapping.map_or(u64::MAX, |fd| fd.as_raw_fd() as u64),
        _ => u64::MAX,
    };
    let mut image = Image::new().map_err(image::refused)?;
    let written = image.write(&layout(script, Part::Helper, &|wanted| input(wanted, &image_inputs)));
    written.map_err(image::refused)?;
    image_inputs.image = image.executable();
    let kept = script.inputs().filter(|input| input.is_descriptor()).map(|kept| input(kept, &image_inputs));
    image_inputs.gaps = gaps(kept.chain([image_inputs.image as u64]).collect());
    let stub = stub(script);
    let kept = PinnedCpu::on_one_of(Processors::of_thread());
    let process =
        Process::clone(0, &layout(&stub, Part::Stub, &|wanted| input(wanted, &image_inputs)), "start a probe");
    drop(kept);
    let mut process = process?;
    drop((report, image));
    let report = receive(&channel, script.reported_words());
    if report.is_ok() {
        process.wait().map_err(Error::io("wait for a probe"))?;
    }
    match report? {
        Report::Tried(words) => Ok(words),
        Report::Failed { part, call, errno, .. } => {
            Err(failure_of(if part == Part::Stub { &stub } else { script }, call, errno))
        }
        _ => Err(Error::died("read the result of a probe")),
    }
}

fn layout<'a>(script: &'a Script, part: Part, resolve: &'a dyn Fn(Input) -> u64) -> Layout<'a> {
    Layout { script, tag: part.tag(), fault: None, resolve }
}

fn receive(channel: &Channel, words: usize) -> Result<Report> {
    let died = || Error::died("probe the features of this host");
    let mut fds = [PollFd::new(channel.as_fd(), PollFlags::POLLIN)];
    let ready = loop {
        match poll(&mut fds, PROBE_TIMEOUT) {
            Err(Errno::EINTR) => {}
            other => break other.map_err(Error::io("wait for a probe"))?,
        }
    };
    if ready == 0 {
        return Err(died());
    }
    channel.read(8 * words)?.ok_or_else(died)
}

/// Creates an executable memfd, to find out whether that is possible.
pub(crate) fn memfd() -> nix::Result<()> {
    image::memfd().map(drop)
}

/// Creates a user namespace with ID maps, for a mount.
pub(crate) fn id_mapping(maps: &IdMaps) -> Result<OwnedFd> {
    let caller = own_pidfd().map_err(Error::io("open a pidfd of the caller"))?;
    idmapped_mount::new_namespace(maps, 0, caller.as_fd())
}
