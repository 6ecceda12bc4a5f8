//! An input as a recipe: numbers taken from its front, and damage done to valid bytes by them.

/// The rest of an input. What is taken beyond its end is zero.
#[derive(Debug, Clone)]
pub struct Recipe<'a> {
    rest: &'a [u8],
}

impl<'a> Recipe<'a> {
    pub fn new(input: &'a [u8]) -> Self {
        Self { rest: input }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Whatever has not been taken.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.rest.split_first() else {
            return 0;
        };
        self.rest = rest;
        *first
    }

    pub fn number(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    /// True for one byte in so many.
    pub fn one_in(&mut self, times: u8) -> bool {
        self.byte().is_multiple_of(times)
    }

    /// Below `limit`, from two bytes.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::from(u16::from_le_bytes([self.byte(), self.byte()])) % limit.max(1)
    }

    /// Damages `bytes` a few times: single bits, whole words with values at the edges of their range,
    /// stretches that are cut, doubled or moved.
    pub fn damage(&mut self, bytes: &mut Vec<u8>) {
        let times = self.byte() % 8;
        for _ in 0..times {
            if bytes.is_empty() {
                return;
            }
            let at = self.position(bytes.len());
            match self.byte() % 8 {
                0 | 1 => bytes[at] ^= 1 << (self.byte() % 8),
                2 => bytes[at] = self.byte(),
                3 => self.edge(&mut bytes[at..]),
                4 => bytes.truncate(at),
                5 => {
                    let more = usize::from(self.byte());
                    bytes.resize(bytes.len() + more, self.byte());
                }
                6 => {
                    let (from, length) = (self.position(bytes.len()), usize::from(self.byte()));
                    let end = (from + length).min(bytes.len());
                    let copy = bytes[from..end].to_vec();
                    let room = copy.len().min(bytes.len() - at);
                    bytes[at..at + room].copy_from_slice(&copy[..room]);
                }
                _ => {
                    let end = (at + usize::from(self.byte())).min(bytes.len());
                    bytes[at..end].fill(0);
                }
            }
        }
    }

    /// A place in something of this length; often near the start, where headers are.
    fn position(&mut self, length: usize) -> usize {
        match self.byte() % 4 {
            0 => self.below(length),
            1 => self.below(length.min(64)),
            2 => length - 1 - self.below(length.min(64)),
            _ => {
                let number = self.number();
                usize::try_from(number % length as u64).expect("below a length")
            }
        }
    }

    /// A word of some size with a value at the edge of its range.
    fn edge(&mut self, bytes: &mut [u8]) {
        let value: u128 = match self.byte() % 8 {
            0 => 0,
            1 => 1,
            2 => u128::MAX,
            3 => u128::MAX >> 1,
            4 => 1 << 20,
            5 => (1 << 20) - 255,
            6 => 0xffff_ffff,
            _ => u128::from(self.number()),
        };
        let size = (1 << (self.byte() % 5)).min(bytes.len());
        bytes[..size].copy_from_slice(&value.to_le_bytes()[..size]);
    }
}

#[cfg(test)]
mod tests {
    use super::Recipe;

    #[test]
    fn an_empty_recipe_damages_nothing() {
        let mut bytes = vec![1, 2, 3];
        Recipe::new(&[]).damage(&mut bytes);
        assert_eq!(bytes, [1, 2, 3]);
    }

    #[test]
    fn every_recipe_can_be_followed() {
        for first in 0..=255 {
            for second in 0..=255 {
                let input = [7, first, 9, second, 3, first ^ second, 77, second, first];
                let mut bytes = vec![5; 40];
                Recipe::new(&input).damage(&mut bytes);
            }
        }
    }
}
