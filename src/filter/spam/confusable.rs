//! Letters that pose as others: what a reader takes a character for (Unicode TR 39, the common ones).

/// The character as it is to be read: in lower case, full-width and styled letters as plain ones;
/// `None` for one that nobody sees (zero width, soft hyphen).
pub(super) fn read(c: char) -> Option<char> {
    if c.is_ascii() {
        return Some(c.to_ascii_lowercase());
    }
    match u32::from(c) {
        0xAD
        | 0x34F
        | 0x61C
        | 0x180E
        | 0x200B..=0x200F
        | 0x202A..=0x202E
        | 0x2060..=0x2064
        | 0xFE00..=0xFE0F
        | 0xFEFF => None,
        0xA0 | 0x2000..=0x200A | 0x202F | 0x205F | 0x3000 => Some(' '),
        // Full-width forms of ASCII.
        wide @ 0xFF01..=0xFF5E => char::from_u32(wide - 0xFEE0).map(|c| c.to_ascii_lowercase()),
        // Mathematical letters: thirteen alphabets of 52, digits behind them.
        styled @ 0x1D400..=0x1D6A3 => letter((styled - 0x1D400) % 52),
        styled @ 0x1D7CE..=0x1D7FF => char::from_digit((styled - 0x1D7CE) % 10, 10),
        circled @ 0x24B6..=0x24E9 => letter(circled - 0x24B6),
        _ => c.to_lowercase().next(),
    }
}

fn letter(place: u32) -> Option<char> {
    char::from_u32(u32::from(b'a') + place % 26)
}

/// The Latin letter that a letter of another script looks like, in lower case.
pub(super) fn latin(c: char) -> Option<char> {
    Some(match c {
        'а' | 'α' | 'ɑ' => 'a',
        'в' | 'ь' => 'b',
        'с' | 'ϲ' | 'ς' => 'c',
        'ԁ' => 'd',
        'е' | 'є' | 'ε' => 'e',
        'ɡ' => 'g',
        'һ' | 'н' => 'h',
        'і' | 'ι' | 'ı' => 'i',
        'ј' => 'j',
        'к' | 'κ' => 'k',
        'ӏ' => 'l',
        'м' => 'm',
        'п' | 'η' => 'n',
        'о' | 'ο' | 'σ' | 'օ' => 'o',
        'р' | 'ρ' => 'p',
        'ѕ' => 's',
        'т' | 'τ' => 't',
        'υ' | 'ц' => 'u',
        'ν' | 'ѵ' => 'v',
        'ѡ' | 'ω' => 'w',
        'х' | 'χ' => 'x',
        'у' | 'γ' => 'y',
        'ᴢ' => 'z',
        _ => return None,
    })
}

/// Reads a word that mixes Latin letters with look-alikes of another script as Latin; tells whether
/// it did.
pub(super) fn unmask(word: &mut String) -> bool {
    let mixed = word.chars().any(|c| c.is_ascii_alphabetic()) && word.chars().any(|c| latin(c).is_some());
    if mixed {
        *word = word.chars().map(|c| latin(c).unwrap_or(c)).collect();
    }
    mixed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        text.chars().filter_map(read).collect()
    }

    #[test]
    fn what_is_not_seen_and_what_looks_alike_is_read_as_a_person_reads_it() {
        assert_eq!(shown("V\u{200B}i\u{AD}AGRA"), "viagra");
        assert_eq!(shown("ＦＲＥＥ"), "free");
        assert_eq!(shown("𝐅𝐫𝐞𝐞 𝟗𝟎"), "free 90");
        assert_eq!(shown("Ⓐⓑ"), "ab");
        let unmasked = |text: &str| {
            let mut word = text.to_owned();
            (unmask(&mut word), word)
        };
        assert_eq!(unmasked("vіаgrа"), (true, "viagra".to_owned()));
        // A word of its own script stays.
        assert_eq!(unmasked("вода"), (false, "вода".to_owned()));
        assert_eq!(unmasked("water"), (false, "water".to_owned()));
    }
}
