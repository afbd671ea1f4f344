//! Reads what a server says, message by message.
//!
//! Included by tests whose clients are no drivers. It has no limit of its own on time: whoever calls it has one, and says who waited
//! for what.

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Reads messages up to one of this type; their types stand in `seen`, one after the other.
pub async fn read_until(stream: &mut (impl AsyncRead + Unpin), tag: u8, seen: &mut Vec<u8>) {
    while seen.last() != Some(&tag) {
        let mut header = [0; 5];
        stream.read_exact(&mut header).await.expect("a header");
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
        let mut body = vec![0; usize::try_from(length).expect("fits") - 4];
        stream.read_exact(&mut body).await.expect("a body");
        seen.push(header[0]);
    }
}
