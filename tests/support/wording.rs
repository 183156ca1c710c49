//! The grammar of hints: each is an instruction.

/// The verbs with which an instruction begins.
const INSTRUCTIONS: &str = "\
    add allow bind call change check choose close collect compile copy create do enable enter extend fill find free \
    give grant hand install join kill learn leave let load look lower make map mount move name nest open pass \
    protect put raise read remove report request run see set spawn start terminate unmount use wait write";

/// Returns whether a hint says what to do. It begins with a verb. A condition ("if …, ", "as root, "), or the reason and
/// a colon, may stand before that.
pub fn is_instruction(hint: &str) -> bool {
    begins_with_verb(hint) || hint.match_indices(": ").any(|(at, _)| begins_with_verb(&hint[at + 2..]))
}

fn begins_with_verb(text: &str) -> bool {
    let text = text.strip_prefix("as root, ").unwrap_or(text);
    let text = match text.strip_prefix("if ") {
        Some(condition) => condition.split_once(", ").map_or("", |(_, rest)| rest),
        None => text,
    };
    INSTRUCTIONS.split_whitespace().any(|verb| verb == first_word(text))
}

fn first_word(text: &str) -> &str {
    text.split(|letter: char| !letter.is_alphabetic()).next().unwrap_or_default()
}
