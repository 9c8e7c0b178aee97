//! Text of others, made fit to be shown.

/// What stands for a character that cannot be shown.
const REPLACEMENT: char = '\u{fffd}';

/// The text without what would steer a terminal or turn the direction of writing: colours of a guest's console go, and what
/// else is no text becomes a replacement character. Line ends and tabs stay.
pub(crate) fn plain(text: &str) -> String {
    let text = console::strip_ansi_codes(text);
    let lines = text.replace("\r\n", "\n");
    lines.chars().map(shown).collect()
}

fn shown(character: char) -> char {
    match character {
        '\n' | '\t' => character,
        other if reorders(other) || is_no_character(other) => REPLACEMENT,
        other if other.is_control() => REPLACEMENT,
        other => other,
    }
}

/// Whether what comes after it is shown in another order, so that a name reads as another.
fn reorders(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn is_no_character(character: char) -> bool {
    matches!(character, '\u{fffe}' | '\u{ffff}')
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn text_stays_as_it_is() {
        assert_eq!(plain("Größe:\t4 KiB\n<b> & \"q\""), "Größe:\t4 KiB\n<b> & \"q\"");
    }

    #[test]
    fn a_console_cannot_steer_the_reader_s_terminal() {
        assert_eq!(plain("\u{1b}[31mred\u{1b}[0m\r\nnext"), "red\nnext");
        assert_eq!(plain("bell\u{7} back\u{8}"), "bell\u{fffd} back\u{fffd}");
        assert!(!plain("\u{1b}]0;title\u{7} \u{9b}2J").contains(['\u{1b}', '\u{9b}', '\u{7}']));
    }

    #[test]
    fn a_name_cannot_be_turned_round() {
        assert_eq!(plain("a\u{202e}b"), "a\u{fffd}b");
    }
}
