//! What is sound of JSON that is broken.
//!
//! Forwarders cut a status inside a string, write `nan`, leave a comma behind, or put bytes into a description that JSON does
//! not allow. No packet beside that may be lost, so text that is not JSON is read again here: objects are taken one by one,
//! written anew as JSON, and handed to the reader of sound ones.
//!
//! * Tolerated: what stands around the outermost object, commas too many or missing, control characters and unknown escapes
//!   in strings, numbers that Rust reads and JSON does not (`+1`, `.5`, `007`), decimal commas. Other words (`NaN`) are no value.
//! * Of a key that is there twice the last one with a value counts; `rxpk` twice is one longer list.
//! * Where the text breaks, the packet or status that is open ends after its last whole field, and the next object is
//!   looked for behind the last quotation mark that began a string.
//!
//! No byte is read more than three times, and nothing recurses: what is nested deeper than [`MAX_DEPTH`] is broken.

use alloc::{string::String, vec::Vec};
use core::ops::Range;

use super::MAX_RXPK;

const MAX_DEPTH: usize = 32;
/// Most fields kept of one object; a packet has some thirty.
const MAX_FIELDS: usize = 64;

/// The objects of a PUSH_DATA, each as JSON; an empty text is one of which nothing is left.
#[derive(Debug, Default)]
pub(super) struct Salvaged {
    /// At most one more than a datagram may have.
    pub(super) packets: Vec<String>,
    pub(super) stats: Vec<String>,
}

/// Text is broken at this place.
struct Broken;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Role {
    /// An outermost object: the whole, or a packet that stands alone since what was around it is broken.
    Outermost,
    /// The list of packets.
    Packets,
    Packet,
    Stat,
    /// What belongs to one of the others.
    Part,
}

struct Field<'a> {
    key: &'a str,
    /// Where it is in what is written, from its comma on.
    written: Range<usize>,
}

/// An object or a list that is not closed yet.
struct Open<'a> {
    role: Role,
    list: bool,
    /// Where it begins in the text.
    begun: usize,
    /// Where it begins in what is written.
    written: usize,
    /// The end of its last whole field in what is written.
    whole: usize,
    fields: Vec<Field<'a>>,
    /// The field or element that is being read: its key, where it is written, whether it has a value.
    current: Option<(&'a str, usize, bool)>,
}

impl Open<'_> {
    fn has(&self, key: &str) -> bool {
        self.fields.iter().any(|field| field.key == key)
    }
    fn is_packet(&self) -> bool {
        self.role == Role::Packet || self.role == Role::Outermost && self.has("freq") && self.has("data")
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// Where the last string began.
    string: usize,
    /// Where to go on instead, if the place is known.
    go_on: Option<usize>,
    written: Vec<u8>,
    open: Vec<Open<'a>>,
    found: Salvaged,
}

/// All packets and statuses of which something is left.
pub(super) fn salvage(text: &str) -> Salvaged {
    let mut reader = Reader::new(text);
    while let Some(start) = reader.rest().find('{').map(|skip| reader.at + skip) {
        let before = text.get(..start).unwrap_or_default().trim_end().strip_suffix(':').unwrap_or_default();
        let role = if before.trim_end().ends_with("\"stat\"") { Role::Stat } else { Role::Outermost };
        reader.outermost(start, role);
        if reader.found.packets.len() > MAX_RXPK {
            break;
        }
    }
    reader.found
}

/// One object written as JSON, if it is one.
pub(super) fn clean(object: &str) -> Option<String> {
    let mut reader = Reader::new(object);
    let start = object.find('{')?;
    reader.outermost(start, Role::Packet);
    reader.found.packets.pop().filter(|text| !text.is_empty())
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, at: 0, string: 0, go_on: None, written: Vec::new(), open: Vec::new(), found: Salvaged::default() }
    }
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Reads the object that begins at `start`, and moves on: behind it, or to where another one may begin.
    fn outermost(&mut self, start: usize, role: Role) {
        (self.at, self.string, self.go_on) = (start, start, None);
        self.written.clear();
        self.enter(role, false);
        while !self.open.is_empty() {
            if self.step().is_err() {
                self.break_off();
                self.at = match self.go_on {
                    Some(object) if object > start => object,
                    _ if self.string > start => self.string + 1,
                    _ => self.at.max(start + 1),
                };
            }
        }
    }

    /// Reads up to the end of the next value, or into it, or out of what is open.
    fn step(&mut self) -> Result<(), Broken> {
        self.skip(|b| b.is_ascii_whitespace());
        if self.peek() == Some(b',') {
            self.whole();
            self.skip(|b| b == b',' || b.is_ascii_whitespace());
        }
        let Some(top) = self.open.last() else { return Ok(()) };
        let (list, next) = (top.list, self.peek().ok_or(Broken)?);
        match next {
            b'}' if !list => return self.close(),
            b']' if list => return self.close(),
            b'"' if !list => self.key()?,
            b'}' | b']' | b':' => return Err(Broken),
            _ if !list => return Err(Broken),
            _ => {
                self.whole();
                let written = self.written.len();
                self.written.push(b',');
                self.begin("", written);
            }
        }
        self.value()
    }

    fn skip(&mut self, what: impl Fn(u8) -> bool) {
        while self.peek().is_some_and(&what) {
            self.at += 1;
        }
    }

    fn begin(&mut self, key: &'a str, written: usize) {
        if let Some(top) = self.open.last_mut() {
            top.current = Some((key, written, true));
        }
    }

    fn key(&mut self) -> Result<(), Broken> {
        self.whole();
        let written = self.written.len();
        self.written.push(b',');
        let key = self.string()?;
        self.skip(|b| b.is_ascii_whitespace());
        if self.peek() != Some(b':') {
            return Err(Broken);
        }
        self.at += 1;
        self.written.push(b':');
        // Two names of one thing.
        self.begin(if key == "rssid" { "rssisd" } else { key }, written);
        // A packet inside of something else: what should have been closed before it was not.
        if let Some(top) = self.open.last()
            && matches!(top.role, Role::Part | Role::Stat)
            && (key == "data" && top.has("freq") || key == "freq" && top.has("data"))
        {
            self.go_on = Some(top.begun);
            return Err(Broken);
        }
        Ok(())
    }

    fn value(&mut self) -> Result<(), Broken> {
        self.skip(|b| b.is_ascii_whitespace());
        let parent = self.open.last().map(|top| (top.role, top.current.map_or("", |(key, ..)| key)));
        let next = self.peek().ok_or(Broken)?;
        if parent.is_some_and(|(role, _)| role == Role::Packets) && next != b'{' {
            self.packet(String::new());
        }
        match (next, parent) {
            (b'{', Some((Role::Packets, _))) => self.enter(Role::Packet, false),
            (b'{', Some((Role::Outermost, "stat"))) => self.enter(Role::Stat, false),
            (b'{', Some((Role::Outermost, "rxpk"))) => self.enter(Role::Outermost, false),
            (b'[', Some((Role::Outermost, "rxpk"))) => self.enter(Role::Packets, true),
            (b'{' | b'[', _) => self.enter(Role::Part, next == b'['),
            (b'"', _) => return self.string().map(drop),
            _ => return self.word(),
        }
        if self.open.len() > MAX_DEPTH { Err(Broken) } else { Ok(()) }
    }

    fn enter(&mut self, role: Role, list: bool) {
        let (begun, written) = (self.at, self.written.len());
        self.at += 1;
        self.written.push(if list { b'[' } else { b'{' });
        let whole = self.written.len();
        self.open.push(Open { role, list, begun, written, whole, fields: Vec::new(), current: None });
    }

    /// A number, `true`, `false`; anything else is no value.
    fn word(&mut self) -> Result<(), Broken> {
        let start = self.at;
        self.skip(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.' | b'_'));
        let word = self.text.get(start..self.at).unwrap_or_default();
        // Where a value is missing its separator follows; all else is broken. A word may be cut at the text's end.
        if self.at == self.text.len() || word.is_empty() && !matches!(self.peek(), Some(b',' | b'}')) {
            return Err(Broken);
        }
        let number = word.parse::<f64>().is_ok_and(f64::is_finite);
        if number && let Some(places) = self.decimal_comma() {
            self.written
                .extend_from_slice([b"\"", word.as_bytes(), b".", places.as_bytes(), b"\""].concat().as_slice());
        } else if matches!(word, "true" | "false") || serde_json::from_str::<f64>(word).is_ok() {
            self.written.extend_from_slice(word.as_bytes());
        } else if number {
            self.written.push(b'"');
            self.written.extend_from_slice(word.as_bytes());
            self.written.push(b'"');
        } else {
            self.written.extend_from_slice(b"null");
            if let Some(current) = self.open.last_mut().and_then(|top| top.current.as_mut()) {
                current.2 = false;
            }
        }
        Ok(())
    }

    /// The places of a number that was printed in a language with a decimal comma. No key begins with a digit.
    fn decimal_comma(&mut self) -> Option<&'a str> {
        let in_object = self.open.last().is_some_and(|top| !top.list);
        let rest = self.rest().strip_prefix(',').filter(|_| in_object)?;
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        self.at += if digits > 0 { 1 + digits } else { 0 };
        rest.get(..digits).filter(|places| !places.is_empty())
    }

    /// Reads a string, writes it as JSON, and returns what stood between its quotation marks.
    fn string(&mut self) -> Result<&'a str, Broken> {
        self.string = self.at;
        self.at += 1;
        self.written.push(b'"');
        loop {
            let start = self.at;
            self.skip(|b| b >= b' ' && b != b'"' && b != b'\\');
            self.written.extend_from_slice(self.text.as_bytes().get(start..self.at).unwrap_or_default());
            match self.peek().ok_or(Broken)? {
                b'"' => break,
                b'\\' => self.escape(),
                control => {
                    self.at += 1;
                    self.unicode(control.into());
                }
            }
        }
        self.at += 1;
        self.written.push(b'"');
        Ok(self.text.get(self.string + 1..self.at - 1).unwrap_or_default())
    }

    fn escape(&mut self) {
        let hex = |at: usize| {
            let digits = self.text.get(at..at + 6)?.strip_prefix("\\u")?;
            let digits = digits.bytes().all(|b| b.is_ascii_hexdigit()).then_some(digits)?;
            u16::from_str_radix(digits, 16).ok()
        };
        let next = self.text.as_bytes().get(self.at + 1).copied();
        match (next, hex(self.at), hex(self.at + 6)) {
            (Some(next), ..) if b"\"\\/bfnrt".contains(&next) => {
                self.written.extend_from_slice(&[b'\\', next]);
                self.at += 2;
            }
            (_, Some(high @ 0xd800..=0xdbff), Some(low @ 0xdc00..=0xdfff)) => {
                self.at += 12;
                self.unicode(high);
                self.unicode(low);
            }
            (_, Some(code), _) => {
                self.at += 6;
                self.unicode(if (0xd800..=0xdfff).contains(&code) { 0xfffd } else { code });
            }
            // No escape that is known: what follows stands for itself.
            _ => self.at += 1,
        }
    }

    fn unicode(&mut self, code: u16) {
        let digit = |shift: u16| char::from_digit(u32::from(code >> shift & 15), 16).unwrap_or('0') as u8;
        self.written.extend_from_slice(&[b'\\', b'u', digit(12), digit(8), digit(4), digit(0)]);
    }

    /// The field or element that was read last is whole.
    fn whole(&mut self) {
        let Some(top) = self.open.last_mut() else { return };
        let Some((key, start, has_value)) = top.current.take() else { return };
        let written = start..self.written.len();
        let full = top.fields.len() == MAX_FIELDS;
        match top.fields.iter_mut().find(|field| field.key == key).filter(|_| has_value) {
            _ if top.list => {}
            Some(earlier) => {
                let earlier = core::mem::replace(&mut earlier.written, written);
                if let Some(bytes) = self.written.get_mut(earlier) {
                    bytes.fill(b' ');
                }
            }
            None if has_value && !full => top.fields.push(Field { key, written }),
            None => self.written.truncate(start),
        }
        top.whole = self.written.len();
    }

    fn close(&mut self) -> Result<(), Broken> {
        self.whole();
        self.at += 1;
        let Some(closed) = self.open.pop() else { return Ok(()) };
        self.end(&closed);
        Ok(())
    }

    /// Writes the end of an object or list, and keeps it if it is what is looked for.
    fn end(&mut self, closed: &Open<'a>) {
        let first = self.written.iter().skip(closed.written + 1).position(|b| *b != b' ');
        if let Some(comma) = first.and_then(|skip| self.written.get_mut(closed.written + 1 + skip)) {
            *comma = b' ';
        }
        self.written.push(if closed.list { b']' } else { b'}' });
        let text = || String::from_utf8_lossy(self.written.get(closed.written..).unwrap_or_default()).into_owned();
        if closed.is_packet() {
            let text = text();
            self.packet(text);
        } else if closed.role == Role::Stat {
            self.found.stats.push(text());
        }
    }

    fn packet(&mut self, text: String) {
        if self.found.packets.len() <= MAX_RXPK {
            self.found.packets.push(text);
        }
    }

    /// The text is broken: what is left of the packet or status that is open.
    fn break_off(&mut self) {
        let mut open = core::mem::take(&mut self.open);
        if let Some(at) = open.iter().position(|open| open.role == Role::Stat || open.is_packet()) {
            let broken = open.swap_remove(at);
            if broken.role == Role::Stat || broken.has("freq") && broken.has("data") {
                self.written.truncate(broken.whole);
                self.end(&broken);
            } else {
                self.packet(String::new());
            }
        }
    }
}
