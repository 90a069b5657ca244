//! Lines of a file of any size, and plain text: one text per line.

use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};

use super::{Mistake, Row, Wanted, repair};

/// Longest line or row in bytes; more means that the file is something else.
pub(super) const ROW_MAX: usize = 64 << 20;

/// Bytes of a file that are read at once.
pub(super) const BLOCK: usize = 1 << 18;

/// A reader without the byte-order mark. Text in UTF-16 is refused: every second byte would be wrong.
pub(super) fn behind_mark<R: Read>(mut reader: R) -> Result<Chain<Cursor<Vec<u8>>, R>, Mistake> {
    let mut first = Vec::with_capacity(3);
    // No further than a mark can go: whoever writes a stream may wait for the answer to a first line of two bytes.
    let may_be_mark = |first: &[u8]| matches!(first.first(), None | Some(0xef | 0xfe | 0xff));
    while first.len() < 3 && may_be_mark(&first) {
        let read = reader.by_ref().take(1).read_to_end(&mut first);
        if read.map_err(|error| Mistake::from(error).at(1))? == 0 {
            break;
        }
    }
    if first.starts_with(&[0xff, 0xfe]) || first.starts_with(&[0xfe, 0xff]) {
        let message = "the file is UTF-16: convert it with `iconv -f UTF-16 -t UTF-8`";
        return Err(Mistake::file(message));
    }
    if first == [0xef, 0xbb, 0xbf] {
        first.clear();
    }
    Ok(Cursor::new(first).chain(reader))
}

/// Lines without their ends, numbered from 1.
pub(super) struct Lines {
    reader: BufReader<Box<dyn Read + Send>>,
    line: Vec<u8>,
    number: u64,
}

impl Lines {
    pub(super) fn new(reader: Box<dyn Read + Send>) -> Result<Self, Mistake> {
        let reader: Box<dyn Read + Send> = Box::new(behind_mark(reader)?);
        Ok(Self { reader: BufReader::with_capacity(BLOCK, reader), line: Vec::new(), number: 0 })
    }

    /// The next line; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<(u64, &[u8])>, Mistake> {
        self.line.clear();
        let limit = ROW_MAX as u64 + 1;
        let read = self.reader.by_ref().take(limit).read_until(b'\n', &mut self.line);
        let count = read.map_err(|error| Mistake::from(error).at(self.number + 1))?;
        if count == 0 {
            return Ok(None);
        }
        self.number += 1;
        if self.line.len() > ROW_MAX {
            let message = format!("a line of more than {ROW_MAX} bytes: is this a text file?");
            return Err(Mistake::row(self.number, message));
        }
        let line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        Ok(Some((self.number, line.strip_suffix(b"\r").unwrap_or(line))))
    }
}

/// Texts of a plain file: lines, or what stands between blank lines.
pub(super) struct Texts {
    lines: Lines,
    documents: bool,
    failed: bool,
}

impl Texts {
    pub(super) fn new(reader: Box<dyn Read + Send>, wanted: &Wanted) -> Result<Self, Mistake> {
        Ok(Self { lines: Lines::new(reader)?, documents: wanted.documents, failed: false })
    }

    fn row(&mut self) -> Result<Option<Row>, Mistake> {
        let mut document: Option<(u64, Vec<u8>)> = None;
        while let Some((number, line)) = self.lines.next()? {
            match &mut document {
                None if line.trim_ascii().is_empty() => continue,
                Some(_) if line.trim_ascii().is_empty() => break,
                None => document = Some((number, line.to_vec())),
                Some((_, text)) => {
                    text.push(b'\n');
                    text.extend_from_slice(line);
                }
            }
            let num_bytes = document.as_ref().map_or(0, |(_, text)| text.len());
            if num_bytes > ROW_MAX {
                let message = format!("a document of more than {ROW_MAX} bytes");
                return Err(Mistake::row(number, message));
            }
            if !self.documents {
                break;
            }
        }
        Ok(document.map(|(at, bytes)| {
            let (text, repaired) = repair(&bytes);
            Row { at, text, pair: None, label: None, repaired }
        }))
    }
}

impl Iterator for Texts {
    type Item = Result<Row, Mistake>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let row = self.row().transpose();
        self.failed = !matches!(row, Some(Ok(_)));
        row
    }
}

/// A whole file as one text.
pub(super) fn whole(mut reader: Box<dyn Read + Send>, label: &str) -> Result<Row, Mistake> {
    let mut reader = behind_mark(&mut reader)?;
    let mut bytes = Vec::new();
    reader.by_ref().take(ROW_MAX as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > ROW_MAX {
        return Err(Mistake::file(format!("a text of more than {ROW_MAX} bytes")));
    }
    let (text, repaired) = repair(&bytes);
    Ok(Row { at: 1, text, pair: None, label: Some(label.to_owned()), repaired })
}

/// As [`read_on`], but what is there now is enough: whoever writes a stream may be slow.
pub(super) fn read_some(
    reader: &mut dyn Read,
    buffer: &mut Vec<u8>,
    count: usize,
) -> io::Result<bool> {
    let before = buffer.len();
    buffer.resize(before + count, 0);
    let read = loop {
        match reader.read(buffer.get_mut(before..).unwrap_or_default()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => break read,
        }
    };
    buffer.truncate(before + read.as_ref().copied().unwrap_or(0));
    Ok(read? > 0)
}

/// Reads on, at most `count` bytes, behind what is in `buffer`. `false`: the file has ended.
pub(super) fn read_on(
    reader: &mut dyn Read,
    buffer: &mut Vec<u8>,
    count: usize,
) -> io::Result<bool> {
    Ok(reader.take(count as u64).read_to_end(buffer)? == count)
}
