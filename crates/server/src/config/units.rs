//! Times and sizes as people write them: `100ms`, `3s`, `64MiB`, or a bare number of milliseconds
//! or bytes. One reader for files and flags, so that both take and refuse the same.

use std::time::Duration;

/// A text that is no time or no size. Says what was written and what could be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// No time.
    #[error("{0:?} is no time: write 100ms, 3s, 2m, 1h or a number of milliseconds")]
    Time(String),
    /// No size.
    #[error("{0:?} is no size: write 512KiB, 64MiB, 1GiB or a number of bytes")]
    Size(String),
}

/// Milliseconds in each unit of time.
const TIMES: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("", 1)];

/// Bytes in each unit of size.
const SIZES: [(&str, u64); 5] =
    [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1), ("", 1)];

/// Reads `100ms`, `3s`, `2m`, `1h`; a bare number is milliseconds.
///
/// # Errors
/// [`UnitError::Time`].
pub fn parse_time(text: &str) -> Result<Duration, UnitError> {
    let milliseconds = parse(text, &TIMES).ok_or_else(|| UnitError::Time(text.to_owned()))?;
    Ok(Duration::from_millis(milliseconds))
}

/// Reads `512KiB`, `64MiB`, `1GiB`; a bare number is bytes.
///
/// # Errors
/// [`UnitError::Size`].
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    parse(text, &SIZES).ok_or_else(|| UnitError::Size(text.to_owned()))
}

/// Digits and one of the units; nothing when it is something else, or too much.
fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let at = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(at);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim())?;
    digits.parse::<u64>().ok()?.checked_mul(*factor)
}

/// The shortest text that is read back as the same number.
fn print(number: u64, units: &[(&str, u64)]) -> String {
    let fitting = units.iter().filter(|(name, factor)| {
        !name.is_empty() && number.is_multiple_of(*factor) && (number != 0 || *factor == 1)
    });
    let (name, factor) = fitting.max_by_key(|(_, factor)| factor).unwrap_or(&("", 1));
    format!("{}{name}", number / factor)
}

/// A number in a file is the text of it: both go one way.
fn text_of(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// For `#[serde(with)]`: a time.
pub(super) mod time {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(time: &Duration, out: S) -> Result<S::Ok, S::Error> {
        let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        out.serialize_str(&super::print(milliseconds, &super::TIMES))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = super::text_of(&toml::Value::deserialize(from)?);
        super::parse_time(&text).map_err(D::Error::custom)
    }
}

/// For `#[serde(with)]`: a time that may be left out.
pub(super) mod time_option {
    use std::time::Duration;

    use serde::{Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        time: &Option<Duration>,
        out: S,
    ) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => super::time::serialize(time, out),
            None => out.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        super::time::deserialize(from).map(Some)
    }
}

/// For `#[serde(with)]`: a size in bytes.
pub(super) mod size {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(size: &u64, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&super::print(*size, &super::SIZES))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        let text = super::text_of(&toml::Value::deserialize(from)?);
        super::parse_size(&text).map_err(D::Error::custom)
    }
}

/// Reads `off`, which is 0, or a size.
///
/// # Errors
/// [`UnitError::Size`].
pub fn parse_size_or_off(text: &str) -> Result<u64, UnitError> {
    if text.trim() == "off" { Ok(0) } else { parse_size(text) }
}

/// For `#[serde(with)]`: a size in bytes; 0 is written as `off`.
pub(super) mod size_or_off {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(size: &u64, out: S) -> Result<S::Ok, S::Error> {
        if *size == 0 { out.serialize_str("off") } else { super::size::serialize(size, out) }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        let text = super::text_of(&toml::Value::deserialize(from)?);
        super::parse_size_or_off(&text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::{SIZES, TIMES, parse_size, parse_time, print};

    #[test]
    fn times_are_read_in_every_unit() {
        let milliseconds = |text| parse_time(text).map(|time| time.as_millis());
        for (text, expected) in
            [("100ms", 100), ("3s", 3_000), ("2m", 120_000), ("1h", 3_600_000), ("250", 250)]
        {
            assert_eq!(milliseconds(text), Ok(expected), "{text}");
        }
        for text in
            ["", "s", "-1", "1.5s", "3 parsecs", "99999999999999999999", "9999999999999999h"]
        {
            let error = parse_time(text).unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }

    #[test]
    fn sizes_are_read_in_every_unit() {
        for (text, expected) in [("4096", 4096), ("4KiB", 4096), ("64 MiB", 64 << 20), ("7B", 7)] {
            assert_eq!(parse_size(text), Ok(expected), "{text}");
        }
        assert!(parse_size("64MB").unwrap_err().to_string().contains("\"64MB\""));
    }

    #[test]
    fn what_is_printed_is_read_back() {
        for number in [0, 1, 999, 1_000, 1_500, 60_000, 7_200_000] {
            let time = parse_time(&print(number, &TIMES)).unwrap();
            assert_eq!(time.as_millis(), u128::from(number));
            assert_eq!(parse_size(&print(number << 10, &SIZES)), Ok(number << 10));
        }
        assert_eq!((print(100, &TIMES), print(64 << 20, &SIZES)), ("100ms".into(), "64MiB".into()));
    }
}
