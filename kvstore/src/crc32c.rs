//! CRC-32 with Castagnoli's polynomial (RFC 3720), eight bytes at a time: etcd's sum of a state.

const POLYNOMIAL: u32 = 0x82f6_3b78;
static TABLES: [[u32; 256]; 8] = tables();

/// A sum that grows with what it is given.
#[derive(Debug, Clone)]
pub struct Crc32c(u32);

/// The n-th table is of a byte that n more follow.
const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let (mut sum, mut bit) = (byte as u32, 0);
        while bit < 8 {
            sum = (sum >> 1) ^ if sum & 1 == 1 { POLYNOMIAL } else { 0 };
            bit += 1;
        }
        tables[0][byte] = sum;
        byte += 1;
    }
    let mut place = 1;
    while place < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[place - 1][byte];
            tables[place][byte] = (before >> 8) ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        place += 1;
    }
    tables
}

impl Default for Crc32c {
    fn default() -> Self {
        Self(u32::MAX)
    }
}

impl Crc32c {
    /// Adds bytes.
    pub fn update(&mut self, data: &[u8]) {
        let mut eights = data.chunks_exact(8);
        for eight in &mut eights {
            let begun = self.0.to_le_bytes();
            let mut sum = 0;
            for (place, byte) in eight.iter().enumerate() {
                let byte = byte ^ begun.get(place).copied().unwrap_or(0);
                sum ^= TABLES[7 - place][usize::from(byte)];
            }
            self.0 = sum;
        }
        for byte in eights.remainder() {
            let at = (self.0 ^ u32::from(*byte)) & 0xff;
            self.0 = (self.0 >> 8) ^ TABLES[0][at as usize];
        }
    }

    /// The sum of all that was added.
    #[must_use]
    pub fn sum(&self) -> u32 {
        !self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(parts: &[&[u8]]) -> u32 {
        let mut crc = Crc32c::default();
        parts.iter().for_each(|part| crc.update(part));
        crc.sum()
    }

    #[test]
    fn the_check_values_are_those_of_rfc_3720() {
        assert_eq!(sum(&[b"123456789"]), 0xe306_9283);
        assert_eq!(sum(&[&[0; 32]]), 0x8a91_36aa);
        assert_eq!(sum(&[&[0xff; 32]]), 0x62a8_ab43);
    }

    #[test]
    fn the_parts_may_be_cut_anywhere() {
        let data: Vec<u8> = (0..100).collect();
        for cut in 0..data.len() {
            let (a, b) = data.split_at(cut);
            assert_eq!(sum(&[a, b]), sum(&[&data]), "cut at {cut}");
        }
    }
}
