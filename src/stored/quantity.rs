//! Numbers with units, as people write them: `"256MiB"`, `"1.5s"`.
//!
//! All arithmetic is exact: what is no whole number of bytes or nanoseconds is an error.

use std::fmt::{self, Formatter};
use std::marker::PhantomData;
use std::time::Duration;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Form;

/// A value in a format that people read.
enum Readable {
    Number(u64),
    Text(String),
}

/// A number of bytes. It is written as a number; above `i64::MAX`, which TOML does not have, as text.
pub(crate) struct Bytes;

/// A number without a unit. It is written as [`Bytes`] are.
pub(crate) struct Count;

/// A limit of setrlimit(2), of whichever unit: `"unlimited"` is `RLIM_INFINITY`.
pub(crate) struct Amount;

/// A number of bytes, or `"unlimited"`, which is `None`.
pub(crate) struct BytesOrUnlimited;

/// A duration. It is written as text: `"1.5s"`.
pub(crate) struct Seconds;

/// The bits of a file mode as octal text: `"0644"`. A number would be decimal in JSON, where `644` is another mode.
pub(crate) struct Octal;

#[cfg(feature = "config")]
impl Bytes {
    /// Reads a size as people write it.
    pub(crate) fn read(text: &str) -> Result<u64, String> {
        <Self as Scalar>::of_text(text).ok_or_else(|| format!("{text:?} is not {}", Self::EXPECTED))
    }
}

#[cfg(feature = "config")]
impl Seconds {
    /// Reads a duration as people write it.
    pub(crate) fn read(text: &str) -> Result<Duration, String> {
        <Self as Scalar>::of_text(text).ok_or_else(|| format!("{text:?} is not {}", Self::EXPECTED))
    }
}

/// What differs between the forms.
trait Scalar {
    type Value: Serialize + for<'de> Deserialize<'de>;

    /// What is expected, for errors.
    const EXPECTED: &'static str;

    fn readable(value: &Self::Value) -> Readable;

    fn of_text(text: &str) -> Option<Self::Value>;

    fn of_number(_: u64) -> Option<Self::Value> {
        None
    }

    fn of_float(_: f64) -> Option<Self::Value> {
        None
    }
}

/// A number that every format has, or text.
fn number(value: u64) -> Readable {
    if i64::try_from(value).is_ok() { Readable::Number(value) } else { Readable::Text(value.to_string()) }
}

impl Scalar for Bytes {
    type Value = u64;

    const EXPECTED: &'static str = "a size: a number of bytes, or text with a unit (K, M, G, T and KiB, MiB, GiB, TiB \
         are powers of 1024; kB, MB, GB, TB of 1000) such as \"256MiB\" or \"1.5G\"";

    fn readable(value: &u64) -> Readable {
        number(*value)
    }

    fn of_text(text: &str) -> Option<u64> {
        u64::try_from(parse(text, SIZES)?).ok()
    }

    fn of_number(number: u64) -> Option<u64> {
        Some(number)
    }
}

impl Scalar for Count {
    type Value = u64;

    const EXPECTED: &'static str = "a number, or text such as \"0x1f\"";

    fn readable(value: &u64) -> Readable {
        number(*value)
    }

    fn of_text(text: &str) -> Option<u64> {
        match text.strip_prefix("0x") {
            Some(digits) if !digits.starts_with('+') => u64::from_str_radix(digits, 16).ok(),
            Some(_) => None,
            None => u64::try_from(parse(text, &[("", 1)])?).ok(),
        }
    }

    fn of_number(number: u64) -> Option<u64> {
        Some(number)
    }
}

impl Scalar for Amount {
    type Value = u64;

    const EXPECTED: &'static str = "a number, a size with a unit (K, M, G, T, KiB, MiB, GiB, TiB, kB, MB, GB, TB) \
         such as \"256MiB\", or \"unlimited\"";

    fn readable(value: &u64) -> Readable {
        if *value == libc::RLIM_INFINITY { Readable::Text("unlimited".into()) } else { number(*value) }
    }

    fn of_text(text: &str) -> Option<u64> {
        if text == "unlimited" { Some(libc::RLIM_INFINITY) } else { Bytes::of_text(text) }
    }

    fn of_number(number: u64) -> Option<u64> {
        Some(number)
    }
}

impl Scalar for BytesOrUnlimited {
    type Value = Option<u64>;

    const EXPECTED: &'static str = "a size: a number of bytes, text with a unit (K, M, G, T, KiB, MiB, GiB, TiB, kB, \
         MB, GB, TB) such as \"256MiB\", or \"unlimited\"";

    fn readable(value: &Option<u64>) -> Readable {
        value.map_or(Readable::Text("unlimited".into()), number)
    }

    fn of_text(text: &str) -> Option<Option<u64>> {
        if text == "unlimited" { Some(None) } else { Bytes::of_text(text).map(Some) }
    }

    fn of_number(number: u64) -> Option<Option<u64>> {
        Some(Some(number))
    }
}

impl Scalar for Seconds {
    type Value = Duration;

    const EXPECTED: &'static str = "a duration: text with units (d, h, m or min, s, ms, us, ns) such as \"1.5s\" or \
         \"1m30s\", or a number of seconds";

    fn readable(value: &Duration) -> Readable {
        let (whole, nanoseconds) = (value.as_secs(), value.subsec_nanos());
        let fraction = format!(".{nanoseconds:09}");
        Readable::Text(format!("{whole}{}s", if nanoseconds == 0 { "" } else { fraction.trim_end_matches('0') }))
    }

    fn of_text(text: &str) -> Option<Duration> {
        const SECOND: u128 = 1_000_000_000;
        let nanoseconds = sum(text)?;
        Some(Duration::new(u64::try_from(nanoseconds / SECOND).ok()?, (nanoseconds % SECOND) as u32))
    }

    fn of_number(number: u64) -> Option<Duration> {
        Some(Duration::from_secs(number))
    }

    fn of_float(float: f64) -> Option<Duration> {
        Duration::try_from_secs_f64(float).ok()
    }
}

impl Scalar for Octal {
    type Value = u32;

    const EXPECTED: &'static str = "a file mode as octal text, such as \"0644\"";

    fn readable(value: &u32) -> Readable {
        Readable::Text(format!("{value:04o}"))
    }

    fn of_text(text: &str) -> Option<u32> {
        let digits = text.strip_prefix("0o").unwrap_or(text);
        u32::from_str_radix(digits, 8).ok().filter(|_| !digits.starts_with('+'))
    }
}

/// In bytes. A letter alone is a power of 1024, as for the tools of the system (`ulimit`, cgroups, `head -c`); with `B`, a
/// power of 1000, and with `iB`, one of 1024 again.
pub(super) const SIZES: &[(&str, u128)] = &[
    ("", 1),
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("K", 1 << 10),
    ("M", 1 << 20),
    ("G", 1 << 30),
    ("T", 1 << 40),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// In nanoseconds.
pub(super) const TIMES: &[(&str, u128)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("min", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

/// The value of a decimal number with a unit. `None` if it is none, or no whole number of the smallest unit.
fn parse(text: &str, units: &[(&str, u128)]) -> Option<u128> {
    let is_number = |letter: char| letter.is_ascii_digit() || letter == '.';
    let (number, unit) = text.split_at(text.find(|letter| !is_number(letter)).unwrap_or(text.len()));
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start_matches(' '))?;
    let (whole, fraction) = match number.split_once('.') {
        Some((whole, fraction)) if !fraction.is_empty() => (whole, fraction.trim_end_matches('0')),
        Some(_) => return None,
        None => (number, ""),
    };
    let scaled = whole.parse::<u128>().ok()?.checked_mul(*factor)?;
    if fraction.is_empty() {
        return Some(scaled);
    }
    let scale = 10u128.checked_pow(fraction.len().try_into().ok()?)?;
    let part = fraction.parse::<u128>().ok()?.checked_mul(*factor)?;
    if part % scale == 0 { scaled.checked_add(part / scale) } else { None }
}

/// The nanoseconds of a duration in one unit or several, the largest first: `1m30s`.
fn sum(text: &str) -> Option<u128> {
    let (mut total, mut last, mut rest) = (0u128, u128::MAX, text);
    while !rest.is_empty() {
        let unit = rest.find(char::is_alphabetic)?;
        let end = rest[unit..].find(|letter: char| !letter.is_alphabetic()).map_or(rest.len(), |end| unit + end);
        let (_, size) = TIMES.iter().find(|(name, _)| *name == &rest[unit..end])?;
        if *size >= last {
            return None;
        }
        total = total.checked_add(parse(&rest[..end], TIMES)?)?;
        (last, rest) = (*size, &rest[end..]);
    }
    (!text.is_empty()).then_some(total)
}

struct ScalarVisitor<F>(PhantomData<F>);

impl<F: Scalar> ScalarVisitor<F> {
    fn known<E: Error>(value: Option<F::Value>, shown: impl FnOnce() -> String) -> Result<F::Value, E> {
        value.ok_or_else(|| E::custom(format!("invalid value: {}, expected {}", shown(), F::EXPECTED)))
    }
}

impl<F: Scalar> Visitor<'_> for ScalarVisitor<F> {
    type Value = F::Value;

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(F::EXPECTED)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<F::Value, E> {
        Self::known(F::of_number(number), || number.to_string())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<F::Value, E> {
        Self::known(u64::try_from(number).ok().and_then(F::of_number), || number.to_string())
    }

    fn visit_f64<E: Error>(self, float: f64) -> Result<F::Value, E> {
        Self::known(F::of_float(float), || float.to_string())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<F::Value, E> {
        Self::known(F::of_text(text), || format!("{text:?}"))
    }
}

fn serialize<F: Scalar, S: Serializer>(value: &F::Value, serializer: S) -> Result<S::Ok, S::Error> {
    if !serializer.is_human_readable() {
        return value.serialize(serializer);
    }
    match F::readable(value) {
        Readable::Number(number) => serializer.serialize_u64(number),
        Readable::Text(text) => serializer.serialize_str(&text),
    }
}

fn deserialize<'de, F: Scalar, D: Deserializer<'de>>(deserializer: D) -> Result<F::Value, D::Error> {
    if !deserializer.is_human_readable() {
        return F::Value::deserialize(deserializer);
    }
    deserializer.deserialize_any(ScalarVisitor::<F>(PhantomData))
}

macro_rules! scalar_forms {
    ($($form:ident: $value:ty),+ $(,)?) => {
        $(impl Form<$value> for $form {
            fn serialize<S: Serializer>(value: &$value, serializer: S) -> Result<S::Ok, S::Error> {
                serialize::<Self, S>(value, serializer)
            }

            fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<$value, D::Error> {
                deserialize::<Self, D>(deserializer)
            }
        })+
    };
}
scalar_forms!(BytesOrUnlimited: Option<u64>, Bytes: u64, Count: u64, Amount: u64, Seconds: Duration, Octal: u32);

/// A figure of either kind that outcomes have.
pub(crate) struct Figure;

impl Form<u64> for Figure {
    fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serialize::<Count, S>(value, serializer)
    }

    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        deserialize::<Count, D>(deserializer)
    }
}

impl Form<Duration> for Figure {
    fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serialize::<Seconds, S>(value, serializer)
    }

    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        deserialize::<Seconds, D>(deserializer)
    }
}

/// A number that is finite. JSON writes others as `null`, which would be read as no limit.
pub(crate) struct Finite;

impl Form<f64> for Finite {
    fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        if !value.is_finite() {
            return Err(serde::ser::Error::custom(format!("{value} can't be stored: use a finite number")));
        }
        serializer.serialize_f64(*value)
    }

    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        let value = f64::deserialize(deserializer)?;
        if value.is_finite() { Ok(value) } else { Err(D::Error::custom("expected a finite number")) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_and_durations_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("256MiB", 256 << 20),
            ("256 MiB", 256 << 20),
            ("256M", 256 << 20),
            ("1.5G", 3 << 29),
            ("4K", 4096),
            ("2T", 2 << 40),
            ("4KB", 4000),
            ("1.5GiB", 3 << 29),
            ("1.5kB", 1500),
            ("0.5KiB", 512),
            ("18446744073709551615", u64::MAX),
            ("16777215.99999904632568359375TiB", u64::MAX - (1 << 20) + 1),
        ] {
            assert_eq!(Bytes::of_text(text), Some(bytes), "{text}");
        }
        for wrong in [
            "",
            "MiB",
            "1.5",
            "-1",
            "+1",
            "1.MiB",
            ".5MiB",
            "1e3",
            "0x10",
            "1m",
            "1k",
            "1Mi",
            "1Mb",
            "1mib",
            "1.5B",
            "16777216T",
        ] {
            assert_eq!(Bytes::of_text(wrong), None, "{wrong}");
        }
        for (text, duration) in [
            ("1.5s", Duration::from_millis(1500)),
            ("10ms", Duration::from_millis(10)),
            ("2 h", Duration::from_secs(7200)),
            ("0.5min", Duration::from_secs(30)),
            ("1m30s", Duration::from_secs(90)),
            ("1h30min", Duration::from_secs(5400)),
            ("1d2h3m4s5ms6us7ns", Duration::new(93_784, 5_006_007)),
            ("7ns", Duration::from_nanos(7)),
            ("1.001us", Duration::from_nanos(1001)),
            ("18446744073709551615.999999999s", Duration::MAX),
        ] {
            assert_eq!(Seconds::of_text(text), Some(duration), "{text}");
        }
        for wrong in [
            "",
            "s",
            "1",
            "1.5",
            "0.5ns",
            "-1s",
            "30s1m",
            "1s1s",
            "1m1min",
            "1h30",
            "1M",
            "18446744073709551616s",
            "1s ",
        ] {
            assert_eq!(Seconds::of_text(wrong), None, "{wrong}");
        }
        assert_eq!(["0644", "644", "0o644"].map(Octal::of_text), [Some(0o644); 3]);
        assert_eq!(["", "8", "+7", "0x7"].map(Octal::of_text), [None; 4]);
        assert_eq!(["0x1f", "31"].map(Count::of_text), [Some(31); 2]);
        assert_eq!(["0x", "0x+1", "1kB", "-1"].map(Count::of_text), [None; 4]);
        assert_eq!(Amount::of_text("unlimited"), Some(u64::MAX));
    }

    /// What is read of what was written.
    fn again<F: Scalar>(value: &F::Value) -> Option<F::Value> {
        match F::readable(value) {
            Readable::Number(number) => F::of_number(number),
            Readable::Text(text) => F::of_text(&text),
        }
    }

    proptest! {
        #[test]
        fn every_quantity_reads_back(bytes in any::<u64>(), duration in any::<Duration>(), mode in any::<u32>()) {
            for bytes in [bytes, bytes >> 32, u64::MAX] {
                prop_assert_eq!([again::<Bytes>(&bytes), again::<Count>(&bytes), again::<Amount>(&bytes)], [Some(bytes); 3]);
            }
            prop_assert_eq!(again::<Seconds>(&duration), Some(duration));
            prop_assert_eq!(again::<Octal>(&mode), Some(mode));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "[0-9.+-]{0,40}[a-zA-Zµ ]{0,3}|\\PC{0,9}") {
            let _ = (Bytes::of_text(&text), Seconds::of_text(&text), Octal::of_text(&text), Amount::of_text(&text));
        }
    }
}
