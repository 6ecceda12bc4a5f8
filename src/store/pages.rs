//! Anonymous memory in large pieces: what tables and indexes are made of.
//!
//! A piece is zeroed, page-aligned, and backed by huge pages where the kernel gives them (a
//! dependent miss then costs a third less). Where it does not, everything works, slower. The memory
//! counts against the process when it is first touched, not when it is mapped.
//!
//! The owner writes through [`Pages::base`], a raw pointer: rows that were handed to a reader on
//! another thread lie in the same piece as rows still being written, so no reference to the whole
//! may exist. What keeps the two apart is stated where the pointer is used.

use memmap2::{MmapMut, MmapOptions};

/// An owned piece of anonymous memory.
#[derive(Debug)]
pub struct Pages {
    /// Kept for its `Drop`; never read as a slice, see above.
    _map: MmapMut,
    base: *mut u8,
    size: usize,
}

// SAFETY: the memory belongs to this value alone; the pointer is not tied to a thread. All access
// goes through `base`, whose users prove that no byte is read and written at the same time.
unsafe impl Send for Pages {}
// SAFETY: as above: `&Pages` by itself gives a pointer, and dereferencing it is the user's proof.
unsafe impl Sync for Pages {}

impl Pages {
    /// Maps `size` zeroed bytes.
    ///
    /// A machine that cannot get memory cannot go on: that stops the process with a message.
    pub fn zeroed(size: usize) -> Self {
        assert!(size > 0);
        let mut map = MmapOptions::new()
            .len(size)
            .no_reserve_swap()
            .map_anon()
            .unwrap_or_else(|error| {
                panic!("cannot map {size} bytes of memory: {error}; add memory or lower limits")
            });
        // Best effort: without huge pages everything works, slower.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        let base = map.as_mut_ptr();
        Self {
            _map: map,
            base,
            size,
        }
    }

    /// The first byte; aligned to a page.
    #[inline]
    pub fn base(&self) -> *mut u8 {
        self.base
    }

    /// Makes the memory resident, so that later writes cause no page faults.
    pub fn touch(&self) {
        const PAGE_SIZE: usize = 4096;
        for offset in (0..self.size).step_by(PAGE_SIZE) {
            // SAFETY: inside of the piece; `&self` of a piece that is not in use anywhere yet.
            unsafe { self.base.add(offset).write_volatile(0) };
        }
    }

    /// Bytes mapped.
    #[inline]
    pub fn size(&self) -> usize {
        self.size
    }
}

/// Asks the processor to fetch the cache line at `address`. Any address is harmless.
#[inline(always)]
pub fn prefetch<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing architecturally and cannot fault, whatever the address.
    unsafe {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above; PRFM cannot fault.
    unsafe {
        core::arch::asm!("prfm pldl1keep, [{0}]", in(reg) address, options(nostack, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = address;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeroed_aligned_and_writable_to_the_last_byte() {
        let pages = Pages::zeroed(3 << 20);
        assert_eq!(pages.base() as usize % 4096, 0);
        assert_eq!(pages.size(), 3 << 20);
        // SAFETY: within the piece, which nobody else sees.
        unsafe {
            let last = pages.base().add(pages.size() - 1);
            assert_eq!(last.read(), 0);
            last.write(7);
            assert_eq!(last.read(), 7);
        }
        prefetch(core::ptr::null::<u8>());
    }
}
