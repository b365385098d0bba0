//! A reply as it stands on the wire: RESP3. The batch door answers with it, so it allocates nothing of its own.

use crate::reply::{Reply, is_decimal};

/// Appends `reply` to `out`.
pub(crate) fn write(reply: &Reply, out: &mut Vec<u8>) {
    match reply {
        Reply::Nil => out.extend_from_slice(b"_\r\n"),
        Reply::Bool(true) => out.extend_from_slice(b"#t\r\n"),
        Reply::Bool(false) => out.extend_from_slice(b"#f\r\n"),
        Reply::Int(number) => {
            out.push(b':');
            if *number < 0 {
                out.push(b'-');
            }
            digits(number.unsigned_abs(), out);
            end(out);
        }
        Reply::Double(number) => double(*number, out),
        Reply::BigNumber(number) if is_decimal(number) => line(b'(', number, out),
        Reply::BigNumber(other) => blob(b'$', other.as_bytes(), out),
        Reply::Simple(text) => line(b'+', text, out),
        Reply::Bulk(bytes) => blob(b'$', bytes, out),
        Reply::Verbatim(format, text) => {
            head(b'=', text.len().saturating_add(4), out);
            out.extend_from_slice(format.letters().as_bytes());
            out.push(b':');
            out.extend_from_slice(text.as_bytes());
            end(out);
        }
        Reply::Error(error) => {
            out.push(b'-');
            out.extend_from_slice(error.code().as_bytes());
            line(b' ', error.message(), out);
        }
        Reply::Array(items) => members(b'*', items, out),
        Reply::Set(items) => members(b'~', items, out),
        Reply::Map(pairs) => {
            head(b'%', pairs.len(), out);
            for (key, value) in pairs {
                write(key, out);
                write(value, out);
            }
        }
    }
}

fn members(sign: u8, items: &[Reply], out: &mut Vec<u8>) {
    head(sign, items.len(), out);
    for item in items {
        write(item, out);
    }
}

fn double(number: f64, out: &mut Vec<u8>) {
    let text = if number.is_nan() {
        "nan".to_owned()
    } else {
        // Rust spells the infinities `inf` and `-inf`, as RESP3 does.
        number.to_string()
    };
    line(b',', &text, out);
}

fn blob(sign: u8, bytes: &[u8], out: &mut Vec<u8>) {
    head(sign, bytes.len(), out);
    out.extend_from_slice(bytes);
    end(out);
}

fn line(sign: u8, text: &str, out: &mut Vec<u8>) {
    out.push(sign);
    if text.contains(['\r', '\n']) {
        out.extend(text.bytes().map(|byte| match byte {
            b'\r' | b'\n' => b' ',
            byte => byte,
        }));
    } else {
        out.extend_from_slice(text.as_bytes());
    }
    end(out);
}

fn head(sign: u8, count: usize, out: &mut Vec<u8>) {
    out.push(sign);
    digits(count as u64, out);
    end(out);
}

fn end(out: &mut Vec<u8>) {
    out.extend_from_slice(b"\r\n");
}

/// Appends the decimal digits. The formatting machinery would cost more than the rest of a short reply.
fn digits(mut number: u64, out: &mut Vec<u8>) {
    let start = out.len();
    loop {
        let digit = u8::try_from(number % 10).unwrap_or_default();
        out.push(b'0' + digit);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    if let Some(written) = out.get_mut(start..) {
        written.reverse();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[test]
    fn every_kind_of_value_has_its_line() {
        let table: [(Reply, &str); 20] = [
            (Reply::nil(), "_\r\n"),
            (true.into(), "#t\r\n"),
            (false.into(), "#f\r\n"),
            (0.into(), ":0\r\n"),
            (i64::MIN.into(), ":-9223372036854775808\r\n"),
            (i64::MAX.into(), ":9223372036854775807\r\n"),
            (1.5.into(), ",1.5\r\n"),
            (f64::INFINITY.into(), ",inf\r\n"),
            (f64::NEG_INFINITY.into(), ",-inf\r\n"),
            (f64::NAN.into(), ",nan\r\n"),
            (
                Reply::big_number("-12345678901234567890"),
                "(-12345678901234567890\r\n",
            ),
            (Reply::big_number("1\r\n+x"), "$5\r\n1\r\n+x\r\n"),
            (Reply::ok(), "+OK\r\n"),
            (Reply::simple("a\r\nb"), "+a  b\r\n"),
            (Reply::bulk("a\r\nb"), "$4\r\na\r\nb\r\n"),
            (Reply::text("hi"), "=6\r\ntxt:hi\r\n"),
            (
                Reply::error(Error::new("WRONGTYPE", "no\r\n")),
                "-WRONGTYPE no  \r\n",
            ),
            (Reply::array([1, 10]), "*2\r\n:1\r\n:10\r\n"),
            (Reply::set([Reply::nil()]), "~1\r\n_\r\n"),
            (Reply::map([("k", 1)]), "%1\r\n$1\r\nk\r\n:1\r\n"),
        ];
        for (reply, wire) in table {
            let mut out = Vec::new();
            write(&reply, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), wire);
        }
    }
}
