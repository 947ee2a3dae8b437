//! Join-request and Join-accept (6.2.4, 6.2.5).

use alloc::vec::Vec;

use super::{
    FrameError, JOIN_ACCEPT_CF_LIST_LEN, JOIN_ACCEPT_LEN, JOIN_REQUEST_LEN,
    crypto::{decrypt_blocks, encrypt_blocks, mic, mic_matches},
    ftype, mhdr, put_u24, u24,
};
use crate::{AesKey, DevAddr, Eui64};

/// A device's request to join. It is not encrypted; anyone can make one, so `verify` first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinRequest {
    /// Named AppEUI before 1.0.4.
    pub join_eui: Eui64,
    pub dev_eui: Eui64,
    /// A counter from 1.0.4 on, random before.
    pub dev_nonce: u16,
    pub mic: [u8; 4],
    /// As received: the RFU bits of its MHDR are part of what was signed.
    mhdr: u8,
}

/// The network's answer to a Join-request, in clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinAccept {
    /// 24 bits; a number that this device's network never used before. Named AppNonce before 1.0.4.
    pub join_nonce: u32,
    /// 24 bits.
    pub net_id: u32,
    pub dev_addr: DevAddr,
    /// 0 to 7.
    pub rx1_dr_offset: u8,
    /// 0 to 15.
    pub rx2_data_rate: u8,
    /// Seconds until RX1, 0 to 15; both 0 and 1 are one second.
    pub rx_delay: u8,
    /// Channels that the device shall use besides its own; the region says in which form.
    pub cf_list: Option<[u8; 16]>,
}

impl JoinRequest {
    pub(super) fn parse(phy: &[u8]) -> Result<Self, FrameError> {
        let phy: &[u8; JOIN_REQUEST_LEN] = phy.try_into().map_err(|_| FrameError::JoinRequestLength)?;
        let [mhdr, j0, j1, j2, j3, j4, j5, j6, j7, d0, d1, d2, d3, d4, d5, d6, d7, n0, n1, mic @ ..] = *phy;
        Ok(Self {
            join_eui: Eui64::from_le_bytes([j0, j1, j2, j3, j4, j5, j6, j7]),
            dev_eui: Eui64::from_le_bytes([d0, d1, d2, d3, d4, d5, d6, d7]),
            dev_nonce: u16::from_le_bytes([n0, n1]),
            mic,
            mhdr,
        })
    }

    fn signed(&self) -> Vec<u8> {
        let mut signed = Vec::with_capacity(JOIN_REQUEST_LEN);
        signed.push(self.mhdr);
        signed.extend_from_slice(&self.join_eui.0.to_le_bytes());
        signed.extend_from_slice(&self.dev_eui.0.to_le_bytes());
        signed.extend_from_slice(&self.dev_nonce.to_le_bytes());
        signed
    }

    /// Whether the MIC is the AppKey's. Compares in constant time.
    pub fn verify(&self, app_key: &AesKey) -> bool {
        mic_matches(app_key, &[&self.signed()], &self.mic)
    }

    /// The PHYPayload of a device's request, 23 bytes.
    pub fn build(join_eui: Eui64, dev_eui: Eui64, dev_nonce: u16, app_key: &AesKey) -> Vec<u8> {
        let request = Self { join_eui, dev_eui, dev_nonce, mic: [0; 4], mhdr: mhdr(ftype::JOIN_REQUEST) };
        let mut phy = request.signed();
        let mic = mic(app_key, &[&phy]);
        phy.extend_from_slice(&mic);
        phy
    }
}

impl JoinAccept {
    /// The PHYPayload that the network sends: 17 bytes, 33 with a CFList. Bits beyond a field's width are cut.
    pub fn build(&self, app_key: &AesKey) -> Vec<u8> {
        let mut phy = Vec::with_capacity(JOIN_ACCEPT_CF_LIST_LEN);
        phy.push(mhdr(ftype::JOIN_ACCEPT));
        put_u24(&mut phy, self.join_nonce);
        put_u24(&mut phy, self.net_id);
        phy.extend_from_slice(&self.dev_addr.0.to_le_bytes());
        phy.push((self.rx1_dr_offset & 0x07) << 4 | self.rx2_data_rate & 0x0f);
        phy.push(self.rx_delay & 0x0f);
        phy.extend(self.cf_list.iter().flatten());
        let mic = mic(app_key, &[&phy]);
        phy.extend_from_slice(&mic);
        if let Some(body) = phy.get_mut(1..) {
            decrypt_blocks(app_key, body);
        }
        phy
    }

    /// What a device does with a Join-accept: decrypt it, check its MIC, read it.
    pub fn open(phy: &[u8], app_key: &AesKey) -> Result<Self, FrameError> {
        let &header = phy.first().ok_or(FrameError::TooShort)?;
        if header >> 5 != ftype::JOIN_ACCEPT {
            return Err(FrameError::OtherType);
        }
        if header & 0b11 != 0 {
            return Err(FrameError::UnknownMajor);
        }
        if !matches!(phy.len(), JOIN_ACCEPT_LEN | JOIN_ACCEPT_CF_LIST_LEN) {
            return Err(FrameError::JoinAcceptLength);
        }
        let mut clear = phy.to_vec();
        if let Some(body) = clear.get_mut(1..) {
            encrypt_blocks(app_key, body);
        }
        let (signed, mic) = clear.split_last_chunk().ok_or(FrameError::JoinAcceptLength)?;
        if !mic_matches(app_key, &[signed], mic) {
            return Err(FrameError::BadMic);
        }
        let (&fields, cf_list) = signed.split_first_chunk().ok_or(FrameError::JoinAcceptLength)?;
        Ok(Self::read(fields, cf_list))
    }

    fn read(fields: [u8; 13], cf_list: &[u8]) -> Self {
        let [_mhdr, n0, n1, n2, i0, i1, i2, a0, a1, a2, a3, dl_settings, rx_delay] = fields;
        Self {
            join_nonce: u24([n0, n1, n2]),
            net_id: u24([i0, i1, i2]),
            dev_addr: DevAddr(u32::from_le_bytes([a0, a1, a2, a3])),
            rx1_dr_offset: dl_settings >> 4 & 0x07,
            rx2_data_rate: dl_settings & 0x0f,
            rx_delay: rx_delay & 0x0f,
            cf_list: cf_list.try_into().ok(),
        }
    }
}
