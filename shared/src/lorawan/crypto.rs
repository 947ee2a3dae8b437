//! AES-128 and AES-CMAC as LoRaWAN 1.0.x uses them (4.3.3, 4.4, 6.2.3).

use aes::{
    Aes128,
    cipher::{BlockDecrypt, BlockEncrypt, KeyInit},
};
use cmac::{Cmac, Mac};

use super::Direction;
use crate::{AesKey, DevAddr};

/// The two keys of a 1.0.x session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Keys {
    /// NwkSKey: integrity of every data frame, and encryption of an FRMPayload with FPort 0.
    pub nwk_s_key: AesKey,
    /// AppSKey: encryption of the FRMPayload of FPort 1 to 255.
    pub app_s_key: AesKey,
}

/// The session keys that both sides of a 1.0.x join derive (6.2.3).
/// `join_nonce` and `net_id` have 24 bits; higher bits are ignored.
pub fn session_keys(app_key: &AesKey, join_nonce: u32, net_id: u32, dev_nonce: u16) -> Keys {
    let derive = |kind: u8| {
        let mut block = [0; 16];
        block[0] = kind;
        block[1..4].copy_from_slice(&join_nonce.to_le_bytes()[..3]);
        block[4..7].copy_from_slice(&net_id.to_le_bytes()[..3]);
        block[7..9].copy_from_slice(&dev_nonce.to_le_bytes());
        encrypt_blocks(app_key, &mut block);
        AesKey(block)
    };
    Keys { nwk_s_key: derive(1), app_s_key: derive(2) }
}

fn mac(key: &AesKey, parts: &[&[u8]]) -> Cmac<Aes128> {
    let mut mac = <Cmac<Aes128> as Mac>::new(&key.0.into());
    for part in parts {
        mac.update(part);
    }
    mac
}

/// The first four bytes of the CMAC over the parts in order.
pub(super) fn mic(key: &AesKey, parts: &[&[u8]]) -> [u8; 4] {
    let [a, b, c, d, ..] = <[u8; 16]>::from(mac(key, parts).finalize().into_bytes());
    [a, b, c, d]
}

/// Whether `expected` is the MIC over the parts; takes the same time for every wrong answer.
pub(super) fn mic_matches(key: &AesKey, parts: &[&[u8]], expected: &[u8; 4]) -> bool {
    mac(key, parts).verify_truncated_left(expected).is_ok()
}

/// What the blocks B0 and A_i share: all but the first and the last byte (4.3.3.1, 4.4).
fn frame_block(first: u8, direction: Direction, dev_addr: DevAddr, fcnt: u32, last: u8) -> [u8; 16] {
    let [a0, a1, a2, a3] = dev_addr.0.to_le_bytes();
    let [c0, c1, c2, c3] = fcnt.to_le_bytes();
    let direction = match direction {
        Direction::Up => 0,
        Direction::Down => 1,
    };
    [first, 0, 0, 0, 0, direction, a0, a1, a2, a3, c0, c1, c2, c3, 0, last]
}

/// B0 of the MIC of a data frame; `len` is that of the frame without its MIC, at most 251 bytes.
pub(super) fn b0(direction: Direction, dev_addr: DevAddr, fcnt: u32, len: usize) -> [u8; 16] {
    frame_block(0x49, direction, dev_addr, fcnt, len as u8)
}

/// Encrypts or decrypts an FRMPayload in place, which is the same operation (4.3.3.1).
pub(super) fn cipher_payload(key: &AesKey, direction: Direction, dev_addr: DevAddr, fcnt: u32, payload: &mut [u8]) {
    let cipher = Aes128::new(&key.0.into());
    for (index, chunk) in (1..=u8::MAX).zip(payload.chunks_mut(16)) {
        let mut block = frame_block(0x01, direction, dev_addr, fcnt, index).into();
        cipher.encrypt_block(&mut block);
        for (byte, stream) in chunk.iter_mut().zip(block) {
            *byte ^= stream;
        }
    }
}

/// AES-128 in ECB mode over whole blocks; a rest below 16 bytes stays as it is.
pub(super) fn encrypt_blocks(key: &AesKey, bytes: &mut [u8]) {
    let cipher = Aes128::new(&key.0.into());
    for block in bytes.chunks_exact_mut(16) {
        cipher.encrypt_block(block.into());
    }
}

/// The inverse of [`encrypt_blocks`]; a server "decrypts" a Join-accept so that devices need encryption only (6.2.5).
pub(super) fn decrypt_blocks(key: &AesKey, bytes: &mut [u8]) {
    let cipher = Aes128::new(&key.0.into());
    for block in bytes.chunks_exact_mut(16) {
        cipher.decrypt_block(block.into());
    }
}
