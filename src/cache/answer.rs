//! Answers as they are kept: messages in blocks of one size, which go from one answer to the next.
//!
//! Made by the session at the end of a fill, appended to a client's output by every hit. Invariants: an answer gives back the
//! bytes that were put into it; blocks that are kept for the next answers, and those in use, are together no more than fit the
//! budget, save for those in use beyond it. Answers of all sizes come and go in a cache: were each an allocation of its own, what
//! the allocator could not use again would grow to several times the budget.

use std::sync::Arc;

use bytes::BytesMut;
use parking_lot::Mutex;

/// Bytes of a block: the average answer wastes half of one.
const BLOCK_BYTES: usize = 512;

type Block = Box<[u8; BLOCK_BYTES]>;

/// Where answers take their blocks from, and give them back to.
#[derive(Debug)]
pub struct Room(Mutex<Blocks>);

#[derive(Debug)]
struct Blocks {
    free: Vec<Block>,
    in_use: usize,
    most: usize,
}

/// An answer's messages, from the description of its columns, where the client has it, to CommandComplete.
#[derive(Debug)]
pub struct Answer {
    blocks: Vec<Block>,
    bytes: usize,
    room: Arc<Room>,
}

impl Room {
    /// For so many bytes.
    pub fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Blocks {
            free: Vec::new(),
            in_use: 0,
            most: bytes_max / BLOCK_BYTES,
        })))
    }

    /// For so many from now on.
    pub fn change_limit(&self, bytes_max: usize) {
        let mut blocks = self.0.lock();
        blocks.most = bytes_max / BLOCK_BYTES;
        blocks.trim();
    }

    /// An answer with these messages.
    pub fn answer(self: &Arc<Self>, messages: &[u8]) -> Answer {
        let needed = messages.len().div_ceil(BLOCK_BYTES);
        let mut taken = Vec::with_capacity(needed);
        {
            let mut blocks = self.0.lock();
            let kept = blocks.free.len() - blocks.free.len().min(needed);
            taken.extend(blocks.free.drain(kept..));
            blocks.in_use += needed;
        }
        taken.resize_with(needed, || Box::new([0; BLOCK_BYTES]));
        for (block, part) in taken.iter_mut().zip(messages.chunks(BLOCK_BYTES)) {
            block[..part.len()].copy_from_slice(part);
        }
        Answer {
            blocks: taken,
            bytes: messages.len(),
            room: Arc::clone(self),
        }
    }
}

impl Blocks {
    fn trim(&mut self) {
        self.free.truncate(self.most.saturating_sub(self.in_use));
    }
}

impl Answer {
    /// Appends its messages.
    pub fn append_to(&self, out: &mut BytesMut) {
        out.reserve(self.bytes);
        let mut rest = self.bytes;
        for block in &self.blocks {
            let part = rest.min(BLOCK_BYTES);
            out.extend_from_slice(&block[..part]);
            rest -= part;
        }
    }

    /// Bytes of memory that it takes.
    pub fn size(&self) -> usize {
        self.blocks.len() * (BLOCK_BYTES + size_of::<Block>())
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let mut blocks = self.room.0.lock();
        blocks.in_use -= self.blocks.len();
        blocks.free.append(&mut self.blocks);
        blocks.trim();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn blocks(room: &Room) -> (usize, usize) {
        let blocks = room.0.lock();
        (blocks.in_use, blocks.free.len())
    }

    #[test]
    fn blocks_are_used_again_and_only_as_many_are_kept_as_fit() {
        let room = Room::new(4 * BLOCK_BYTES);
        let (three, two) = (
            room.answer(&[1; 3 * BLOCK_BYTES]),
            room.answer(&[2; BLOCK_BYTES + 1]),
        );
        assert_eq!(blocks(&room), (5, 0));
        drop(three);
        assert_eq!(blocks(&room), (2, 2), "four fit");
        let one = room.answer(&[3]);
        assert_eq!(blocks(&room), (3, 1));
        room.change_limit(3 * BLOCK_BYTES);
        assert_eq!(blocks(&room), (3, 0));
        drop((one, two));
        assert_eq!(blocks(&room), (0, 3));
    }

    proptest! {
        #[test]
        fn an_answer_gives_back_what_was_put_into_it(sizes in proptest::collection::vec(0..5 * BLOCK_BYTES, 1..9)) {
            let room = Room::new(6 * BLOCK_BYTES);
            let mut before: Option<(Answer, Vec<u8>)> = None;
            for (number, size) in sizes.into_iter().enumerate() {
                let messages: Vec<u8> = (number..number + size).map(|byte| byte.to_le_bytes()[0]).collect();
                let answer = room.answer(&messages);
                for (answer, messages) in [Some((answer, messages)), before.take()].into_iter().flatten() {
                    let mut out = BytesMut::from(&b"before"[..]);
                    answer.append_to(&mut out);
                    prop_assert_eq!(&out[6..], &messages[..]);
                    before.get_or_insert((answer, messages));
                }
            }
        }
    }
}
