//! A filter as a graph of decisions, and the shortest program for it that this file knows how to write.
//!
//! Equal parts of a filter are one node, however many system calls lead there; and what the accumulator holds already is not
//! loaded again. The kernel checks, translates and compiles each instruction of a filter when it is installed, once a spawn,
//! so that the length of a filter is a large part of what a sandbox costs.

use std::collections::{HashMap, HashSet};

use seccompiler::{BpfProgram, sock_filter};

/// Instructions of `linux/bpf_common.h`.
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
pub(super) const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_GREATER: u16 = 0x25;
const JUMP_IF_GREATER_OR_EQUAL: u16 = 0x35;
const JUMP_IF_ANY_SET: u16 = 0x45;
const RETURN: u16 = 0x06;
/// What stands for a comparison with a half of the pass, which each sandbox has of its own.
pub(super) const HIGH_HALF: u16 = 0xfffe;
pub(super) const LOW_HALF: u16 = 0xffff;

/// A node of a [`Graph`], which has made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Node(usize);

/// 32 bits of `struct seccomp_data`, by their offset there; and the bits among them that count, if not all do.
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

/// What is asked of an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Test {
    Equal(u32),
    Greater(u32),
    GreaterOrEqual(u32),
    AnySet(u32),
    /// Whether it is the higher or lower half of the pass.
    HighHalf,
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
enum Decision {
    Return(u32),
    Branch { operand: Operand, test: Test, yes: Node, no: Node },
}

/// Decisions, each of which comes after those that it leads to. Equal ones are the same node.
#[derive(Debug, Default)]
pub(super) struct Graph {
    decisions: Vec<Decision>,
    nodes: HashMap<Decision, Node>,
}

impl Graph {
    /// Ends with this result.
    pub fn result(&mut self, word: u32) -> Node {
        self.node(Decision::Return(word))
    }

    /// Goes to `yes` or `no`.
    pub fn branch(&mut self, operand: Operand, test: Test, yes: Node, no: Node) -> Node {
        match (operand.mask, test) {
            (Some(mask), Test::Equal(value)) if value & !mask != 0 => no,
            (Some(0), Test::Equal(_)) => yes,
            (Some(mask), Test::Equal(0)) => self.any_set(operand.offset, mask, no, yes),
            (Some(mask), Test::Equal(_)) if mask.is_power_of_two() => self.any_set(operand.offset, mask, yes, no),
            _ if yes == no => yes,
            _ => self.node(Decision::Branch { operand, test, yes, no }),
        }
    }

    /// Goes to `yes` if any of these bits is set. Bits that lead there one after the other are asked for at once.
    fn any_set(&mut self, offset: u32, bits: u32, yes: Node, no: Node) -> Node {
        let operand = Operand::at(offset);
        match self.decisions[no.0] {
            Decision::Branch { operand: same, test: Test::AnySet(more), yes: also, no }
                if same == operand && also == yes =>
            {
                self.branch(operand, Test::AnySet(bits | more), yes, no)
            }
            _ => self.branch(operand, Test::AnySet(bits), yes, no),
        }
    }

    fn node(&mut self, decision: Decision) -> Node {
        let next = Node(self.decisions.len());
        let node = *self.nodes.entry(decision).or_insert(next);
        if node == next {
            self.decisions.push(decision);
        }
        node
    }

    /// The node of a program that loads what it compares. Where it returns, `result` says what comes. `None` for a program
    /// with other instructions.
    pub fn import(&mut self, program: &[sock_filter], result: impl Fn(u32) -> Option<Node>) -> Option<Node> {
        let loaded = loaded(program)?;
        let mut nodes: Vec<Option<Node>> = vec![None; program.len()];
        for (index, instruction) in program.iter().enumerate().rev() {
            let at = |distance: usize| nodes.get(index + 1 + distance).copied().flatten();
            nodes[index] = match instruction.code {
                RETURN => Some(result(instruction.k)?),
                LOAD | AND => at(0),
                JUMP => at(instruction.k as usize),
                // One that is never reached has no operand.
                _ => match (at(instruction.jt.into()), at(instruction.jf.into()), loaded[index]) {
                    (Some(yes), Some(no), Some(operand)) => Some(self.branch(operand, Test::of(instruction)?, yes, no)),
                    _ => None,
                },
            };
        }
        nodes.first().copied().flatten()
    }

    /// The program that begins at a node.
    pub fn program(&self, root: Node) -> BpfProgram {
        let order = self.reached(root);
        let mut writer = Writer { graph: self, reversed: vec![], entries: HashMap::new() };
        let wanted = self.wanted(root, &order);
        for node in order {
            writer.write(node, &wanted);
        }
        writer.reversed.reverse();
        writer.reversed
    }

    /// The nodes that are reached, each after those that it leads to, and where that can be had directly after the one for
    /// `no`.
    fn reached(&self, root: Node) -> Vec<Node> {
        let (mut order, mut seen, mut left) = (vec![], vec![false; self.decisions.len()], vec![(root, false)]);
        while let Some((node, is_done)) = left.pop() {
            if is_done {
                order.push(node);
            } else if !std::mem::replace(&mut seen[node.0], true) {
                left.push((node, true));
                if let Decision::Branch { yes, no, .. } = self.decisions[node.0] {
                    left.extend([(no, false), (yes, false)]);
                }
            }
        }
        order
    }

    /// The entries that are used.
    fn wanted(&self, root: Node, order: &[Node]) -> HashSet<(Node, Entry)> {
        let mut wanted = HashSet::from([(root, self.entry(root, None))]);
        for &node in order {
            if let Decision::Branch { operand, yes, no, .. } = self.decisions[node.0] {
                wanted.extend([yes, no].map(|to| (to, self.entry(to, Some(operand)))));
            }
        }
        wanted
    }

    /// Where a node is entered with this in the accumulator.
    fn entry(&self, node: Node, held: Option<Operand>) -> Entry {
        match (self.decisions[node.0], held) {
            (Decision::Branch { operand, .. }, Some(held)) if held == operand => Entry::Test,
            (Decision::Branch { operand, .. }, Some(held)) if held == Operand::at(operand.offset) => Entry::Mask,
            _ => Entry::Load,
        }
    }
}

/// What a node is entered by, when the accumulator holds what it needs, or that but for the mask, or something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Entry {
    Test,
    Mask,
    Load,
}

/// Writes a program from its end, since all jumps are forward.
struct Writer<'a> {
    graph: &'a Graph,
    reversed: BpfProgram,
    /// Instructions that were written when the entry was, the last one included.
    entries: HashMap<(Node, Entry), usize>,
}

impl Writer<'_> {
    fn write(&mut self, node: Node, wanted: &HashSet<(Node, Entry)>) {
        let (operand, test, yes, no) = match self.graph.decisions[node.0] {
            Decision::Return(word) => {
                self.push(RETURN, word);
                self.enter(node, Entry::Load);
                return;
            }
            Decision::Branch { operand, test, yes, no } => (operand, test, yes, no),
        };
        let targets = [yes, no].map(|to| (to, self.graph.entry(to, Some(operand))));
        targets.iter().for_each(|target| self.bring_near(*target));
        let [jt, jf] = targets.map(|target| (self.reversed.len() - self.entries[&target]) as u8);
        let (code, k) = test.code();
        self.reversed.push(sock_filter { code, jt, jf, k });
        self.enter(node, Entry::Test);
        let wants = |entry| wanted.contains(&(node, entry));
        if let Some(mask) = operand.mask.filter(|_| wants(Entry::Mask) || wants(Entry::Load)) {
            self.push(AND, mask);
            self.enter(node, Entry::Mask);
        }
        if wants(Entry::Load) {
            self.push(LOAD, operand.offset);
            self.enter(node, Entry::Load);
        }
    }

    fn push(&mut self, code: u16, k: u32) {
        self.reversed.push(sock_filter { code, jt: 0, jf: 0, k });
    }

    fn enter(&mut self, node: Node, entry: Entry) {
        self.entries.insert((node, entry), self.reversed.len());
    }

    /// Repeats a result, or adds a jump, where a conditional jump does not reach as far.
    fn bring_near(&mut self, target: (Node, Entry)) {
        /// One less than the longest distance: another one may be brought near after it.
        const FAR: usize = u8::MAX as usize - 1;
        let distance = self.reversed.len() - self.entries[&target];
        if distance > FAR {
            match self.graph.decisions[target.0.0] {
                Decision::Return(word) => self.push(RETURN, word),
                Decision::Branch { .. } => self.push(JUMP, distance as u32),
            }
            self.enter(target.0, target.1);
        }
    }
}

/// What the accumulator holds before each instruction: nothing that is known before a program's first one. `None` for
/// a program which compares something that depends on the way there.
fn loaded(program: &[sock_filter]) -> Option<Vec<Option<Operand>>> {
    #[derive(Clone, Copy, PartialEq)]
    enum Held {
        Unreached,
        Unknown,
        This(Operand),
    }
    let mut held = vec![Held::Unreached; program.len() + 1 + usize::from(u8::MAX)];
    held[0] = Held::Unknown;
    let mut operands = vec![];
    for (index, instruction) in program.iter().enumerate() {
        let before = held[index];
        let mut lead = |distance: usize, after: Held| {
            let target = held.get_mut(index + 1 + distance)?;
            *target = if *target == Held::Unreached || *target == after { after } else { Held::Unknown };
            Some(())
        };
        let operand = if let Held::This(operand) = before { Some(operand) } else { None };
        operands.push(operand);
        match instruction.code {
            _ if before == Held::Unreached => {}
            RETURN => {}
            LOAD => lead(0, Held::This(Operand::at(instruction.k)))?,
            AND => {
                lead(0, Held::This(Operand { mask: Some(instruction.k), ..operand.filter(|it| it.mask.is_none())? }))?
            }
            JUMP => lead(instruction.k as usize, before)?,
            _ => {
                operand?;
                lead(instruction.jt.into(), before)?;
                lead(instruction.jf.into(), before)?;
            }
        }
    }
    Some(operands)
}
