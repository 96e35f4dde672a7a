//! How answers look: tables and amounts for people, JSON for scripts.

use std::io::{self, Write};

use serde::Serialize;

/// Writes one line of JSON.
pub(super) fn json(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    writeln!(out)
}

/// Writes rows with their columns set flush; the first row is the heading.
pub(super) fn table<const COLUMNS: usize>(out: &mut impl Write, rows: &[[String; COLUMNS]]) -> io::Result<()> {
    let mut widths = [0; COLUMNS];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count()) + 2));
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];

/// Spells an amount of bytes, such as `1.5 GiB`.
pub(super) fn bytes(amount: u64) -> String {
    for (unit, shift) in UNITS {
        if amount >> shift > 0 {
            let tenths = (u128::from(amount) * 10) >> shift;
            return match (tenths / 10, tenths % 10) {
                (whole, 0) => format!("{whole} {unit}"),
                (whole, tenth) => format!("{whole}.{tenth} {unit}"),
            };
        }
    }
    format!("{amount} B")
}

/// Reads an amount of bytes: a number, alone or with a unit such as `KiB`, `MB` or `G` (the short
/// forms count in powers of 1,024 too, as disks' users mean them here).
pub(super) fn parse_bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err("expected a number of bytes, such as 500MiB or 2GiB".into()),
    };
    let number: u64 = number.parse().map_err(|_| "expected a number of bytes, such as 500MiB or 2GiB")?;
    number.checked_mul(1 << shift).ok_or_else(|| "this is more than any disk holds".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_spelled_and_read() {
        for (amount, text) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (3 << 29, "1.5 GiB"), (u64::MAX, "16777215.9 TiB")]
        {
            assert_eq!(bytes(amount), text);
        }
        assert_eq!(parse_bytes("2GiB"), Ok(2 << 30));
        assert_eq!(parse_bytes(" 500 mb "), Ok(500 << 20));
        assert_eq!(parse_bytes("77"), Ok(77));
        for text in ["", "GiB", "-1", "1.5G", "1 XB", "99999999999 TiB", "1é"] {
            assert!(parse_bytes(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_table_sets_its_columns_flush() {
        let mut out = Vec::new();
        table(&mut out, &[["a".into(), "b".into()], ["long".into(), "x".into()]]).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "a     b\nlong  x\n");
    }
}
