//! A filter as a graph of decisions, and a short program for it. No system call and no policy is known here: nodes
//! compare words of `struct seccomp_data`.
//!
//! Equal parts of a filter are one node, however many system calls lead there, and what the accumulator already holds
//! is not loaded again. The kernel checks, translates and compiles each instruction when a filter is installed, in
//! every spawn. So the length of the filter is a large part of the cost of a sandbox.

use std::collections::{HashMap, HashSet};

use seccompiler::{BpfProgram, sock_filter};

/// Codes of instructions (`linux/bpf_common.h`).
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
pub(super) const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_GREATER: u16 = 0x25;
const JUMP_IF_GREATER_OR_EQUAL: u16 = 0x35;
const JUMP_IF_ANY_SET: u16 = 0x45;
const RETURN: u16 = 0x06;
/// Placeholders for a comparison with one half of the pass, which differs in each sandbox.
pub(super) const HIGH_HALF: u16 = 0xfffe;
pub(super) const LOW_HALF: u16 = 0xffff;

/// A node of a [`Graph`], by its index there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Node(usize);

/// A word of `struct seccomp_data` by its offset, and the bits of it that are compared, if not all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Operand {
    offset: u32,
    mask: Option<u32>,
}

impl Operand {
    pub fn at(offset: u32) -> Self {
        Self { offset, mask: None }
    }
}

/// A test of an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Test {
    Equal(u32),
    Greater(u32),
    GreaterOrEqual(u32),
    AnySet(u32),
    /// Equal to the upper half of the pass.
    HighHalf,
    /// Equal to the lower half of the pass.
    LowHalf,
}

impl Test {
    fn of(instruction: &sock_filter) -> Option<Self> {
        match instruction.code {
            JUMP_IF_EQUAL => Some(Self::Equal(instruction.k)),
            JUMP_IF_GREATER => Some(Self::Greater(instruction.k)),
            JUMP_IF_GREATER_OR_EQUAL => Some(Self::GreaterOrEqual(instruction.k)),
            _ => None,
        }
    }

    fn code(self) -> (u16, u32) {
        match self {
            Self::Equal(k) => (JUMP_IF_EQUAL, k),
            Self::Greater(k) => (JUMP_IF_GREATER, k),
            Self::GreaterOrEqual(k) => (JUMP_IF_GREATER_OR_EQUAL, k),
            Self::AnySet(k) => (JUMP_IF_ANY_SET, k),
            Self::HighHalf => (HIGH_HALF, 0),
            Self::LowHalf => (LOW_HALF, 0),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Vertex {
    Return(u32),
    Branch { operand: Operand, test: Test, yes: Node, no: Node },
}

/// A graph of decisions. Each stands after those that it leads to. Equal decisions are one node.
#[derive(Debug, Default)]
pub(super) struct Graph {
    decisions: Vec<Vertex>,
    nodes: HashMap<Vertex, Node>,
}

impl Graph {
    /// Returns a node that returns this value.
    pub fn result(&mut self, word: u32) -> Node {
        self.node(Vertex::Return(word))
    }

    /// Returns a node that continues at `yes` if the test holds, and at `no` otherwise.
    pub fn branch(&mut self, operand: Operand, test: Test, yes: Node, no: Node) -> Node {
        match (operand.mask, test) {
            (Some(mask), Test::Equal(value)) if value & !mask != 0 => no,
            (Some(0), Test::Equal(_)) => yes,
            (Some(mask), Test::Equal(0)) => self.any_set(operand.offset, mask, no, yes),
            (Some(mask), Test::Equal(_)) if mask.is_power_of_two() => self.any_set(operand.offset, mask, yes, no),
            _ if yes == no => yes,
            _ => self.node(Vertex::Branch { operand, test, yes, no }),
        }
    }

    /// Returns a node that continues at `yes` if any of these bits is set. Successive tests that lead there become one.
    fn any_set(&mut self, offset: u32, bits: u32, yes: Node, no: Node) -> Node {
        let operand = Operand::at(offset);
        match self.decisions[no.0] {
            Vertex::Branch { operand: same, test: Test::AnySet(more), yes: also, no }
                if same == operand && also == yes =>
            {
                self.branch(operand, Test::AnySet(bits | more), yes, no)
            }
            _ => self.branch(operand, Test::AnySet(bits), yes, no),
        }
    }

    fn node(&mut self, decision: Vertex) -> Node {
        let next = Node(self.decisions.len());
        let node = *self.nodes.entry(decision).or_insert(next);
        if node == next {
            self.decisions.push(decision);
        }
        node
    }

    /// Adds a program, and returns its first node. `result` maps its return values to nodes. `None` if the program has
    /// instructions that are not supported.
    pub fn import(&mut self, program: &[sock_filter], result: impl Fn(u32) -> Option<Node>) -> Option<Node> {
        let loaded = loaded(program)?;
        let mut nodes: Vec<Option<Node>> = vec![None; program.len()];
        for (index, instruction) in program.iter().enumerate().rev() {
            let at = |distance: usize| nodes.get(index + 1 + distance).copied().flatten();
            nodes[index] = match instruction.code {
                RETURN => Some(result(instruction.k)?),
                LOAD | AND => at(0),
                JUMP => at(instruction.k as usize),
                // An instruction that is never reached has no operand.
                _ => match (at(instruction.jt.into()), at(instruction.jf.into()), loaded[index]) {
                    (Some(yes), Some(no), Some(operand)) => Some(self.branch(operand, Test::of(instruction)?, yes, no)),
                    _ => None,
                },
            };
        }
        nodes.first().copied().flatten()
    }

    /// Returns the program that starts at a node.
    pub fn program(&self, root: Node) -> BpfProgram {
        let order = self.reached(root);
        let mut writer = Emitter { graph: self, reversed: vec![], entries: HashMap::new() };
        let used = self.used_entries(root, &order);
        for node in order {
            writer.write(node, &used);
        }
        writer.reversed.reverse();
        writer.reversed
    }

    /// Returns the nodes that are reached from `root`, each after those that it leads to, and if possible directly
    /// after its `no` node.
    fn reached(&self, root: Node) -> Vec<Node> {
        let (mut order, mut seen, mut pending) = (vec![], vec![false; self.decisions.len()], vec![(root, false)]);
        while let Some((node, is_done)) = pending.pop() {
            if is_done {
                order.push(node);
            } else if !std::mem::replace(&mut seen[node.0], true) {
                pending.push((node, true));
                if let Vertex::Branch { yes, no, .. } = self.decisions[node.0] {
                    pending.extend([(no, false), (yes, false)]);
                }
            }
        }
        order
    }

    /// Returns the entry points that the program uses.
    fn used_entries(&self, root: Node, order: &[Node]) -> HashSet<(Node, EntryPoint)> {
        let mut used = HashSet::from([(root, self.entry(root, None))]);
        for &node in order {
            if let Vertex::Branch { operand, yes, no, .. } = self.decisions[node.0] {
                used.extend([yes, no].map(|to| (to, self.entry(to, Some(operand)))));
            }
        }
        used
    }

    /// Returns the entry point of a node for this content of the accumulator.
    fn entry(&self, node: Node, held: Option<Operand>) -> EntryPoint {
        match (self.decisions[node.0], held) {
            (Vertex::Branch { operand, .. }, Some(held)) if held == operand => EntryPoint::Test,
            (Vertex::Branch { operand, .. }, Some(held)) if held == Operand::at(operand.offset) => EntryPoint::Mask,
            _ => EntryPoint::Load,
        }
    }
}

/// The instruction at which a node is entered: its test if the accumulator holds the operand, its mask if the
/// accumulator holds the unmasked word, and its load otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum EntryPoint {
    Test,
    Mask,
    Load,
}

/// Writes a program from its end, since all jumps are forward.
struct Emitter<'a> {
    graph: &'a Graph,
    reversed: BpfProgram,
    /// The number of instructions that had been written when an entry point was, itself included.
    entries: HashMap<(Node, EntryPoint), usize>,
}

impl Emitter<'_> {
    fn write(&mut self, node: Node, used: &HashSet<(Node, EntryPoint)>) {
        let (operand, test, yes, no) = match self.graph.decisions[node.0] {
            Vertex::Return(word) => {
                self.push(RETURN, word);
                self.enter(node, EntryPoint::Load);
                return;
            }
            Vertex::Branch { operand, test, yes, no } => (operand, test, yes, no),
        };
        let targets = [yes, no].map(|to| (to, self.graph.entry(to, Some(operand))));
        targets.iter().for_each(|target| self.bring_near(*target));
        let [jt, jf] = targets.map(|target| (self.reversed.len() - self.entries[&target]) as u8);
        let (code, k) = test.code();
        self.reversed.push(sock_filter { code, jt, jf, k });
        self.enter(node, EntryPoint::Test);
        let is_used = |entry| used.contains(&(node, entry));
        if let Some(mask) = operand.mask.filter(|_| is_used(EntryPoint::Mask) || is_used(EntryPoint::Load)) {
            self.push(AND, mask);
            self.enter(node, EntryPoint::Mask);
        }
        if is_used(EntryPoint::Load) {
            self.push(LOAD, operand.offset);
            self.enter(node, EntryPoint::Load);
        }
    }

    fn push(&mut self, code: u16, k: u32) {
        self.reversed.push(sock_filter { code, jt: 0, jf: 0, k });
    }

    fn enter(&mut self, node: Node, entry: EntryPoint) {
        self.entries.insert((node, entry), self.reversed.len());
    }

    /// Repeats a return, or adds a jump, if a target is too far away for a conditional jump.
    fn bring_near(&mut self, target: (Node, EntryPoint)) {
        /// One less than the longest distance: the other target may be brought near afterwards.
        const MAX_DISTANCE: usize = u8::MAX as usize - 1;
        let distance = self.reversed.len() - self.entries[&target];
        if distance > MAX_DISTANCE {
            match self.graph.decisions[target.0.0] {
                Vertex::Return(word) => self.push(RETURN, word),
                Vertex::Branch { .. } => self.push(JUMP, distance as u32),
            }
            self.enter(target.0, target.1);
        }
    }
}

/// Returns what the accumulator holds before each instruction, if that is known. `None` if a program compares a value
/// that depends on the path to the comparison.
fn loaded(program: &[sock_filter]) -> Option<Vec<Option<Operand>>> {
    #[derive(Clone, Copy, PartialEq)]
    enum Loaded {
        Unreached,
        Unknown,
        Known(Operand),
    }
    let mut held = vec![Loaded::Unreached; program.len() + 1 + usize::from(u8::MAX)];
    held[0] = Loaded::Unknown;
    let mut operands = vec![];
    for (index, instruction) in program.iter().enumerate() {
        let before = held[index];
        let mut flow = |distance: usize, after: Loaded| {
            let target = held.get_mut(index + 1 + distance)?;
            *target = if *target == Loaded::Unreached || *target == after { after } else { Loaded::Unknown };
            Some(())
        };
        let operand = if let Loaded::Known(operand) = before { Some(operand) } else { None };
        operands.push(operand);
        match instruction.code {
            _ if before == Loaded::Unreached => {}
            RETURN => {}
            LOAD => flow(0, Loaded::Known(Operand::at(instruction.k)))?,
            AND => flow(
                0,
                Loaded::Known(Operand {
                    mask: Some(instruction.k),
                    ..operand.filter(|operand| operand.mask.is_none())?
                }),
            )?,
            JUMP => flow(instruction.k as usize, before)?,
            _ => {
                operand?;
                flow(instruction.jt.into(), before)?;
                flow(instruction.jf.into(), before)?;
            }
        }
    }
    Some(operands)
}
