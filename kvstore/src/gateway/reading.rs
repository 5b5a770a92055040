//! Requests' bodies: one JSON value, or on a stream one object after the other, never more of them than a request may have.

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use tonic::Status;

use crate::listen::Inbound;

/// JSON that stands for a message may be so many times as long: base64, and the names of fields.
const JSON_FACTOR: usize = 2;

/// A body that is too long is read on up to so many times what it may have, and thrown away: most clients read their answer
/// only once they have sent all of it.
const HEARD_OUT: usize = 8;

/// The most bytes of JSON for a message of at most so many.
pub fn most_json(message_bytes: usize) -> usize {
    message_bytes.saturating_mul(JSON_FACTOR)
}

fn too_large(found: usize, most: usize) -> Status {
    Status::resource_exhausted(format!(
        "grpc: received message larger than max ({found} vs. {most})"
    ))
}

fn broken(error: &dyn std::fmt::Display) -> Status {
    Status::invalid_argument(format!("the request can't be read: {error}"))
}

/// The whole body.
///
/// # Errors
/// When it is longer than `most`, or breaks off.
pub async fn whole(mut body: Inbound, most: usize) -> Result<Bytes, Status> {
    let mut all = BytesMut::new();
    let mut found = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| broken(&e))?;
        if let Ok(data) = frame.into_data() {
            found += data.len();
            if found <= most {
                all.extend_from_slice(&data);
            } else if found > most.saturating_mul(HEARD_OUT) {
                break;
            } else {
                all.clear();
            }
        }
    }
    if found > most {
        return Err(too_large(found, most));
    }
    Ok(all.freeze())
}

/// JSON objects that follow each other in a body.
pub struct Objects {
    body: Inbound,
    most: usize,
    waiting: BytesMut,
    scan: Scan,
}

/// How far an object has been looked through: each byte once, however it comes.
#[derive(Default)]
struct Scan {
    at: usize,
    depth: usize,
    in_text: bool,
    escaped: bool,
}

impl Scan {
    /// The end of the first object in `bytes`, if it is there. What is no object is for the decoder to refuse.
    fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        while let Some(&byte) = bytes.get(self.at) {
            self.at += 1;
            if self.in_text {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_text = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_text = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return Some(self.at);
                    }
                }
                _ => {}
            }
        }
        None
    }
}

impl Objects {
    pub fn new(body: Inbound, most: usize) -> Self {
        Self {
            body,
            most,
            waiting: BytesMut::new(),
            scan: Scan::default(),
        }
    }

    /// The next object; None at the body's end. What is left when that breaks off counts as one more.
    ///
    /// # Errors
    /// When one is longer than the most, or the body can't be read.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            let spaces = self.waiting.iter().take_while(|b| b.is_ascii_whitespace());
            let spaces = spaces.count();
            if spaces > 0 && self.scan.at == 0 {
                self.waiting.advance(spaces);
            }
            if let Some(end) = self.scan.end(&self.waiting) {
                self.scan = Scan::default();
                return Ok(Some(self.waiting.split_to(end).freeze()));
            }
            if self.waiting.len() > self.most {
                return Err(too_large(self.waiting.len(), self.most));
            }
            match self.body.frame().await {
                Some(frame) => {
                    if let Ok(data) = frame.map_err(|e| broken(&e))?.into_data() {
                        self.waiting.extend_from_slice(&data);
                    }
                }
                None if self.waiting.trim_ascii().is_empty() => return Ok(None),
                None => {
                    self.scan = Scan::default();
                    return Ok(Some(self.waiting.split().freeze()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use tonic::body::Body;

    use super::*;

    fn body(parts: &[&str]) -> Inbound {
        let parts: Vec<_> = parts.iter().map(|p| Bytes::from(p.to_string())).collect();
        let frames = parts.into_iter().map(|p| Ok::<_, Status>(Frame::data(p)));
        Inbound::Local(Body::new(StreamBody::new(futures::stream::iter(frames))))
    }

    async fn objects(parts: &[&str], most: usize) -> (Vec<String>, Option<String>) {
        let mut objects = Objects::new(body(parts), most);
        let mut found = Vec::new();
        loop {
            match objects.next().await {
                Ok(Some(one)) => found.push(String::from_utf8(one.to_vec()).unwrap()),
                Ok(None) => return (found, None),
                Err(status) => return (found, Some(status.message().to_owned())),
            }
        }
    }

    #[tokio::test]
    async fn objects_are_found_wherever_the_body_is_cut() {
        let text = r#"  {"a":"}{\"\\"} {"b":[{}]}
            {} "#;
        let whole = [r#"{"a":"}{\"\\"}"#, r#"{"b":[{}]}"#, "{}"];
        for cut in 0..text.len() {
            let (a, b) = text.split_at(cut);
            assert_eq!(objects(&[a, b], 100).await.0, whole, "cut at {cut}");
        }
        let bytes: Vec<String> = text.chars().map(String::from).collect();
        let bytes: Vec<&str> = bytes.iter().map(String::as_str).collect();
        assert_eq!(objects(&bytes, 100).await.0, whole);
        assert_eq!(objects(&[r#"{"a":"#], 100).await.0, [r#"{"a":"#]);
    }

    #[tokio::test]
    async fn what_waits_is_bounded() {
        let (found, error) = objects(&["{} {", "\"a\":\"", "xxxxxxxxxx", "xxx"], 16).await;
        assert_eq!(found, ["{}"]);
        let text = "grpc: received message larger than max (19 vs. 16)";
        assert_eq!(error.unwrap(), text);
        let status = whole(body(&["12345", "67890"]), 9).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        assert_eq!(
            whole(body(&["12345", "6789"]), 9).await.unwrap(),
            "123456789"
        );
    }
}
