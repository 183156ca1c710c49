//! A parser for git's configuration files (git-config(1), "Syntax"). It finds every setting that git would find, and
//! may find more. What a setting means does not belong here.

/// Returns the settings of a configuration in order, with `section.key` in lower case. Subsections are ignored:
/// `[core "x"]` counts as `core`, so that too many settings are found rather than too few.
pub(super) fn settings(text: &str) -> Vec<(String, String)> {
    let mut parser = Parser { rest: text.chars().collect(), at: 0 };
    let (mut section, mut settings) = (String::new(), vec![]);
    while let Some(next) = parser.next_token() {
        match next {
            '[' => section = parser.header(),
            _ => {
                parser.at -= 1;
                let key = parser.key();
                settings.push((format!("{section}.{key}"), parser.value()));
            }
        }
    }
    settings
}

struct Parser {
    rest: Vec<char>,
    at: usize,
}

impl Parser {
    fn next(&mut self) -> Option<char> {
        let next = self.rest.get(self.at).copied();
        self.at += usize::from(next.is_some());
        next
    }

    /// Returns the next character that is neither white space nor part of a comment.
    fn next_token(&mut self) -> Option<char> {
        loop {
            match self.next()? {
                '#' | ';' => while self.next().is_some_and(|next| next != '\n') {},
                next if next.is_whitespace() || next == '\u{feff}' => {}
                next => return Some(next),
            }
        }
    }

    /// Parses the name in `[name "subsection"]`. An unterminated header ends with its line.
    fn header(&mut self) -> String {
        let mut name = String::new();
        let (mut in_name, mut quoted, mut escaped) = (true, false, false);
        while let Some(next) = self.next() {
            match next {
                '\n' => break,
                _ if escaped => escaped = false,
                '\\' if quoted => escaped = true,
                '"' => (in_name, quoted) = (false, !quoted),
                ']' if !quoted => break,
                // The old form is `[name.subsection]`.
                ' ' | '\t' | '.' if !quoted => in_name = in_name && name.is_empty(),
                next if in_name => name.extend(next.to_lowercase()),
                _ => {}
            }
        }
        name
    }

    /// Parses the name of a setting, up to its `=` or the end of the line.
    fn key(&mut self) -> String {
        let mut key = String::new();
        while let Some(next) = self.next() {
            match next {
                '=' => break,
                // A setting without a value.
                '\n' => {
                    self.at -= 1;
                    break;
                }
                '#' | ';' => {
                    self.at -= 1;
                    break;
                }
                next if next.is_whitespace() => {}
                next => key.extend(next.to_lowercase()),
            }
        }
        key
    }

    /// Parses the value of a setting, up to the end of the line. An escaped line end continues it.
    fn value(&mut self) -> String {
        let (mut value, mut spaces, mut quoted) = (String::new(), String::new(), false);
        while let Some(next) = self.next() {
            let character = match next {
                '\n' => break,
                '\\' => match self.next() {
                    Some('\n') | None => continue,
                    Some('\r') => continue,
                    Some('n') => '\n',
                    Some('t') => '\t',
                    Some('b') => '\u{8}',
                    Some(other) => other,
                },
                '"' => {
                    quoted = !quoted;
                    continue;
                }
                '#' | ';' if !quoted => {
                    while self.next().is_some_and(|next| next != '\n') {}
                    break;
                }
                next if next.is_whitespace() && !quoted => {
                    // White space at both ends is ignored.
                    spaces.extend((!value.is_empty()).then_some(next));
                    continue;
                }
                next => next,
            };
            value.push_str(&std::mem::take(&mut spaces));
            value.push(character);
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_as_git_reads_them() {
        for (text, expected) in [
            ("[core]\n\thooksPath = hk\n", vec![("core.hookspath", "hk")]),
            ("[core] hooksPath = hk", vec![("core.hookspath", "hk")]),
            ("[core]\nhooksPath = hk ; team hooks\n", vec![("core.hookspath", "hk")]),
            ("[core]\nhooksPath = hk# team\n", vec![("core.hookspath", "hk")]),
            ("[core]\nhooksPath = \"h\"k\n", vec![("core.hookspath", "hk")]),
            ("[core]\nhooksPath = \"h ; k\" \n", vec![("core.hookspath", "h ; k")]),
            ("[core]\nhooksPath = h\\\nk\n", vec![("core.hookspath", "hk")]),
            ("[core]\nhooksPath = h\\\\k\\\"\n", vec![("core.hookspath", "h\\k\"")]),
            ("[core]\nbare\nhooksPath=hk", vec![("core.bare", ""), ("core.hookspath", "hk")]),
            ("# [x]\n[CORE]\nHOOKSPATH=hk\r\n", vec![("core.hookspath", "hk")]),
            ("[includeIf \"gitdir:a]b\"] path = x", vec![("includeif.path", "x")]),
            ("[include.x] path = y", vec![("include.path", "y")]),
            ("[a]b=c\n[core]hooksPath= h  k  \n", vec![("a.b", "c"), ("core.hookspath", "h  k")]),
            ("[core", vec![]),
            ("", vec![]),
        ] {
            let expected: Vec<_> = expected.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
            assert_eq!(settings(text), expected, "{text:?}");
        }
    }
}
