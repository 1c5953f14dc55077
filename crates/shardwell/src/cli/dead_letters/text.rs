//! Letters in words. What comes from records and errors may hold anything, so nothing of it reaches a terminal that the
//! terminal would obey.

use std::collections::BTreeMap;
use std::fmt::Display;

use shardwell::Timestamp;

/// `3 letters`, and so on.
pub(super) fn count(letters: usize) -> String {
    match letters {
        0 => "no letters".to_owned(),
        1 => "1 letter".to_owned(),
        n => format!("{n} letters"),
    }
}

/// Text in one line, with a space for every control character.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The beginning of a text, in at most so many characters.
pub(super) fn shortened(text: &str, characters: usize) -> String {
    if text.chars().nth(characters).is_none() {
        return text.to_owned();
    }
    text.chars().take(characters.saturating_sub(3)).chain("...".chars()).collect()
}

/// A point in time without its milliseconds.
pub(super) fn to_the_second(time: Timestamp) -> String {
    let text = time.to_string();
    match text.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => text,
    }
}

/// How often each was seen: `3 dead, 2 parked`.
pub(super) fn tally<T: Display>(counts: &BTreeMap<T, u64>) -> String {
    counts.iter().map(|(what, count)| format!("{count} {what}")).collect::<Vec<_>>().join(", ")
}

/// A payload as text, where it is text that can be shown.
pub(super) fn as_text(data: &[u8]) -> Option<&str> {
    let harmless = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t');
    std::str::from_utf8(data).ok().filter(|text| text.chars().all(harmless))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_shown() {
        assert_eq!(one_line("a\u{1b}[2Jb\nc\u{9b}"), "a [2Jb c ");
        assert_eq!(as_text(b"a\tb\n"), Some("a\tb\n"));
        for hidden in [&b"\x1b[2J"[..], b"\xff", "\u{9b}".as_bytes(), b"a\0"] {
            assert_eq!(as_text(hidden), None);
        }
    }

    #[test]
    fn long_text_is_cut_off_at_a_character() {
        assert_eq!(shortened("héééé", 5), "héééé");
        assert_eq!(shortened("héééééé", 5), "hé...");
    }

    #[test]
    fn times_are_told_to_the_second() {
        assert_eq!(to_the_second(Timestamp::from_millis(1999)), "1970-01-01T00:00:01Z");
        assert_eq!(to_the_second(Timestamp::from_millis(-1)), "-1 ms since 1970");
    }
}
