//! Compiled programs of the kernel's packet filter that a caller adds to its policy. They are checked here as the kernel
//! does (`bpf_check_classic` in `net/core/filter.c`, `seccomp_check_filter` in `kernel/seccomp.c`), so that an error
//! says which instruction is wrong. What they decide is the caller's matter, but for one result that denies nothing.

use seccompiler::sock_filter;

use super::bpf::{self, PASS_OFFSET, RET_ALLOW, RET_ERRNO, RET_TRACE};
use super::decision_graph::{HIGH_HALF, JUMP_IF_EQUAL, LOW_HALF};
use crate::error::{Error, Result};
use crate::plan::Word;

/// `BPF_LD | BPF_W | BPF_ABS`, and `BPF_LD | BPF_IMM`.
const LOAD: u16 = 0x20;
const LOAD_CONSTANT: u16 = 0x00;
/// `BPF_RET | BPF_K`, and `BPF_RET | BPF_A`.
const RETURN: u16 = 0x06;
const RETURN_A: u16 = 0x16;
/// `BPF_JMP | BPF_JA`.
const JUMP: u16 = 0x05;
/// `BPF_MISC | BPF_TAX`, `BPF_MISC | BPF_TXA`, and `BPF_ALU | BPF_AND | BPF_K`.
const A_TO_X: u16 = 0x07;
const X_TO_A: u16 = 0x87;
const AND: u16 = 0x54;
/// The bits of a result that are the action (`SECCOMP_RET_ACTION_FULL`).
const ACTION: u32 = 0xffff_0000;

/// The instructions that let calls with the pass through, and clear the register A, as the kernel does before a
/// program. They precede each program.
const PROLOGUE: [sock_filter; 6] = [
    of(LOAD, 0, 0, PASS_OFFSET),
    of(LOW_HALF, 0, 3, 0),
    of(LOAD, 0, 0, PASS_OFFSET + 4),
    of(HIGH_HALF, 0, 1, 0),
    of(RETURN, 0, 0, RET_ALLOW),
    of(LOAD_CONSTANT, 0, 0, 0),
];
/// The instructions that return A, but for `SECCOMP_RET_TRACE`: a program can trace its child, and let it make the
/// call. They follow each program.
const EPILOGUE: [sock_filter; 6] = [
    of(A_TO_X, 0, 0, 0),
    of(AND, 0, 0, ACTION),
    of(JUMP_IF_EQUAL, 0, 1, RET_TRACE),
    of(RETURN, 0, 0, RET_ERRNO | libc::ENOSYS as u32),
    of(X_TO_A, 0, 0, 0),
    of(RETURN_A, 0, 0, 0),
];
/// The number of instructions that are added to a program.
const ADDED: usize = PROLOGUE.len() + EPILOGUE.len();
/// The kernel's limit (`BPF_MAXINSNS`), less those.
const MAX_INSTRUCTIONS: usize = 4096 - ADDED;
/// The size of `struct seccomp_data`, and the number of words of scratch memory (`BPF_MEMWORDS`).
const DATA_SIZE: u32 = 64;
const MEMORY_WORDS: u32 = 16;

/// Checks a program of native `struct sock_filter`s, and returns it after the instructions that let the set-up through.
pub(super) fn lower(program: &[u8]) -> Result<Vec<Word>> {
    let refused = |what: String| {
        let remedy = "give a program as seccomp(2) takes it: an array of struct sock_filter in the byte order of the machine, \
                      such as seccomp_export_bpf_mem(3) writes";
        Err(Error::invalid(format!("the BPF program is invalid: {what}"), remedy))
    };
    if program.is_empty() {
        return refused("it is empty".into());
    }
    if !program.len().is_multiple_of(8) {
        return refused(format!("its {} bytes are no multiple of 8, the size of an instruction", program.len()));
    }
    let count = program.len() / 8;
    if count > MAX_INSTRUCTIONS {
        return refused(format!(
            "it has {count} instructions; the kernel allows 4096, of which the sandbox needs {ADDED}"
        ));
    }
    let mut instructions: Vec<sock_filter> = program.chunks_exact(8).map(instruction).collect();
    if let Err((at, what)) = check(&instructions) {
        return refused(format!("instruction {at} (code {:#x}) {what}", instructions[at].code));
    }
    for (at, instruction) in instructions.iter_mut().enumerate() {
        if instruction.code == RETURN_A {
            *instruction = of(JUMP, 0, 0, (count - at - 1) as u32);
        }
    }
    Ok(PROLOGUE.iter().chain(&instructions).chain(&EPILOGUE).map(bpf::word).collect())
}

const fn of(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

fn instruction(bytes: &[u8]) -> sock_filter {
    let k = u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
    of(u16::from_ne_bytes([bytes[0], bytes[1]]), bytes[2], bytes[3], k)
}

/// Returns the index of the first invalid instruction, and what is wrong with it.
fn check(instructions: &[sock_filter]) -> std::result::Result<(), (usize, &'static str)> {
    let count = instructions.len();
    // The words of scratch memory that are written on every path to an instruction.
    let mut written_at = vec![u16::MAX; count];
    let mut written: u16 = 0;
    for (at, instruction) in instructions.iter().enumerate() {
        let rest = count - at - 1;
        written &= written_at[at];
        let mut jump = |distance: usize| {
            let target = (distance < rest).then(|| at + 1 + distance).ok_or((at, "jumps past the end"))?;
            written_at[target] &= written;
            Ok(())
        };
        match instruction.code {
            LOAD if !instruction.k.is_multiple_of(4) || instruction.k >= DATA_SIZE => {
                return Err((at, "loads from an offset that is no word of struct seccomp_data"));
            }
            RETURN if instruction.k & ACTION == RET_TRACE => {
                return Err((at, "returns SECCOMP_RET_TRACE, which denies nothing: the program can trace itself"));
            }
            // Loads of data, of its length and of constants; exchange of registers; returns.
            LOAD | 0x80 | 0x81 | LOAD_CONSTANT | 0x01 | A_TO_X | X_TO_A | RETURN | RETURN_A => {}
            // Arithmetic: + - * | & << >> ^ with a constant and with X, / with X, and negation.
            0x04 | 0x0c | 0x14 | 0x1c | 0x24 | 0x2c | 0x3c | 0x44 | 0x4c | AND | 0x5c | 0x6c | 0x7c | 0x84 | 0xa4
            | 0xac => {}
            0x34 if instruction.k == 0 => return Err((at, "divides by 0")),
            0x64 | 0x74 if instruction.k >= 32 => return Err((at, "shifts by 32 bits or more")),
            0x34 | 0x64 | 0x74 => {}
            // Scratch memory.
            0x02 | 0x03 | 0x60 | 0x61 if instruction.k >= MEMORY_WORDS => {
                return Err((at, "has an index of scratch memory above 15"));
            }
            0x02 | 0x03 => written |= 1 << instruction.k,
            0x60 | 0x61 if written >> instruction.k & 1 == 0 => {
                return Err((at, "loads from scratch memory to which nothing was stored before"));
            }
            0x60 | 0x61 => {}
            JUMP => {
                jump(instruction.k as usize)?;
                written = u16::MAX;
            }
            JUMP_IF_EQUAL | 0x1d | 0x25 | 0x2d | 0x35 | 0x3d | 0x45 | 0x4d => {
                jump(instruction.jt.into())?;
                jump(instruction.jf.into())?;
                written = u16::MAX;
            }
            _ => return Err((at, "is not allowed in a filter of system calls")),
        }
    }
    match instructions.last() {
        Some(last) if matches!(last.code, RETURN | RETURN_A) => Ok(()),
        _ => Err((count - 1, "is the last, and does not return")),
    }
}
