//! The form of a unit in UCUM, case sensitive (<https://ucum.org/ucum>, §§5 to 12): factors, each a
//! symbol with an exponent, a number or a term in brackets, joined by `.` and `/`, with annotations in
//! braces. Symbols are not looked up: hospitals have units that no table has.

/// Checks the form.
///
/// # Errors
/// What is wrong with it, as the end of a sentence.
pub(super) fn check(unit: &str) -> Result<(), &'static str> {
    if unit.is_empty() || unit.len() > 64 {
        return Err("must have 1 to 64 characters");
    }
    if !unit.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("has a character that no unit has");
    }
    let rest = term(unit.strip_prefix('/').unwrap_or(unit), 0)?;
    match rest.is_empty() {
        true => Ok(()),
        false => Err("has a bracket too many"),
    }
}

/// Reads factors; gives what follows them, which is nothing or begins with `)`.
fn term(mut rest: &str, depth: usize) -> Result<&str, &'static str> {
    loop {
        rest = match rest.strip_prefix('(') {
            Some(inner) if depth < 8 => {
                let end = term(inner, depth + 1)?;
                end.strip_prefix(')').ok_or("has an open bracket")?
            }
            Some(_) => return Err("is nested too deep"),
            None => factor(rest)?,
        };
        match rest.bytes().next() {
            Some(b'.' | b'/') => rest = &rest[1..],
            _ => return Ok(rest),
        }
    }
}

/// A symbol or a number, with annotations.
fn factor(text: &str) -> Result<&str, &'static str> {
    let mut rest = text;
    while let Some(c) = rest.bytes().next() {
        let close = match c {
            b'{' => '}',
            b'[' => ']',
            b'}' | b']' => return Err("has a bracket too many"),
            b'.' | b'/' | b'(' | b')' => break,
            _ => {
                rest = &rest[1..];
                continue;
            }
        };
        let end = rest.find(close).ok_or("has an open bracket")?;
        if end < 2 || rest[1..end].contains(['[', '{']) {
            return Err("has brackets around nothing");
        }
        rest = &rest[end + 1..];
    }
    match rest.len() == text.len() {
        true => Err("has a factor without a symbol"),
        false => Ok(rest),
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn units_of_medicine_have_the_form() {
        for unit in [
            "1",
            "%",
            "a",
            "mm",
            "mm2",
            "ml/min/{1.73_m2}",
            "mmol/L",
            "10*3/uL",
            "[HU]",
            "[hnsf'U]",
            "kg.m/s2",
            "/min",
            "mm[Hg]",
            "{score}",
            "(kg.m)/s2",
            "ug/(8.h)",
        ] {
            assert_eq!(check(unit), Ok(()), "{unit}");
        }
    }

    #[test]
    fn anything_else_does_not() {
        for unit in [
            "", "m m", "mm²", "ml/", "/", "ml//min", "{score", "score}", "[HU", "(mm", "mm)", "()",
            "{}", "[]", ".mm",
        ] {
            assert!(check(unit).is_err(), "{unit}");
        }
    }
}
