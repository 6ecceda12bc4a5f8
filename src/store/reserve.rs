//! Memory for chunks to come, touched ahead by another thread.
//!
//! The first touch of a huge page costs 0.09 ms for zeroing it; on a virtual machine whose host has
//! to find the memory first, 5 to 10 ms were measured, for two mebibytes. That is five times what
//! executing the transfers costs that go there. So a thread with time touches memory before the
//! executor needs it, and chunks whose rows went to files come back here.
//!
//! The librarian does it, when it has nothing else to do. The builder must not do it while it writes a checkpoint: that held up a checkpoint by 0.5 s, and
//! the journal, which waits for checkpoints, ran full.
//!
//! ```text
//!   idle thread: fill ──► reserve ──► executor: take ──► chunk ──► in a file, and no snapshot ──► reserve
//! ```
//!
//! The lock is held to push or pop one handle, never while memory is touched. What is in the
//! reserve has no meaning: a table with an empty one maps its memory itself.

use std::sync::{Arc, Mutex};

use super::pages::Pages;

/// Pieces kept at most: 256 MiB of chunks of transfers.
const PIECES_MAX: usize = 32;

/// See the module. Clones are handles of one reserve.
#[derive(Debug, Clone)]
pub struct Reserve {
    pieces: Arc<Mutex<Vec<Pages>>>,
    piece_size: usize,
}

impl Reserve {
    /// An empty reserve of pieces of this size.
    pub fn new(piece_size: usize) -> Self {
        Self {
            pieces: Arc::default(),
            piece_size,
        }
    }

    /// Bytes of a piece.
    pub fn piece_size(&self) -> usize {
        self.piece_size
    }

    /// Pieces ready.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Maps and touches one piece, if fewer than `count` are ready. Slow: not for the executor.
    pub fn fill(&self, count: usize) {
        if self.len() < count.min(PIECES_MAX) {
            let piece = Pages::zeroed(self.piece_size);
            piece.touch();
            self.put(piece);
        }
    }

    /// A piece, touched before if there is one. Its bytes are arbitrary. It comes back by itself.
    pub fn take(&self) -> Piece {
        Piece {
            pages: Some(self.take_for_good()),
            reserve: self.clone(),
        }
    }

    /// A piece that does not come back. Its bytes are zeros in a reserve to which none does.
    pub fn take_for_good(&self) -> Pages {
        let piece = self.lock().pop();
        piece.unwrap_or_else(|| Pages::zeroed(self.piece_size))
    }

    fn put(&self, piece: Pages) {
        assert_eq!(piece.size(), self.piece_size);
        let mut pieces = self.lock();
        if pieces.len() < PIECES_MAX {
            pieces.push(piece);
            return;
        }
        // Unmapped without holding the lock.
        drop(pieces);
        drop(piece);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Pages>> {
        self.pieces
            .lock()
            .expect("no user panics while holding the lock")
    }
}

/// A piece in use: goes back to its reserve when nobody uses it any more, whichever thread that is on.
#[derive(Debug)]
pub struct Piece {
    /// `None` only while it is being dropped.
    pages: Option<Pages>,
    reserve: Reserve,
}

impl Piece {
    /// The first byte; aligned to a page.
    #[inline]
    pub fn base(&self) -> *mut u8 {
        self.pages.as_ref().expect("not dropped").base()
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if let Some(pages) = self.pages.take() {
            self.reserve.put(pages);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_go_round() {
        let reserve = Reserve::new(8192);
        let handle = reserve.clone();
        (0..5).for_each(|_| handle.fill(3));
        assert_eq!(reserve.len(), 3);
        let pieces: Vec<Piece> = (0..5).map(|_| reserve.take()).collect();
        assert!(reserve.is_empty());
        drop(pieces);
        assert_eq!(reserve.len(), 5);
        (0..2 * PIECES_MAX).for_each(|_| reserve.fill(usize::MAX));
        assert_eq!(reserve.len(), PIECES_MAX);
        reserve.put(Pages::zeroed(8192));
        assert_eq!(reserve.len(), PIECES_MAX);
    }
}
