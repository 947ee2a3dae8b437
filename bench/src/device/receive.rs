//! What a device does with bytes that it heard.

use limpet_shared::lorawan::{
    DataFrame, Direction, Frame, FrameError, JoinAccept,
    mac::{DownlinkCommand, parse_downlink},
    parse,
};

use super::{Commands, Session, VirtualDevice};

/// What a device understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// It has a new session.
    Joined,
    Data {
        /// It will be acknowledged with the next uplink.
        confirmed: bool,
        /// Of its last confirmed uplink.
        ack: bool,
        f_pending: bool,
        /// 32-bit FCntDown.
        fcnt: u32,
        fport: Option<u8>,
        /// Decrypted; empty for MAC commands.
        payload: Vec<u8>,
        commands: Vec<DownlinkCommand>,
    },
}

/// Why a device ignored what it heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiveError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("an uplink, or a frame of no use to a device")]
    NoDownlink,
    #[error("a JoinAccept, but the device asked for none")]
    NotJoining,
    #[error("for another device")]
    NotForUs,
    #[error("wrong MIC, or a counter from the past")]
    BadMic,
    #[error("the same downlink as before")]
    Repeated,
    /// The network broke its third promise.
    #[error("two different downlinks under one FCntDown")]
    CounterReused,
}

impl VirtualDevice {
    /// Reads what was heard in a receive window.
    pub fn receive(&mut self, phy: &[u8]) -> Result<Received, ReceiveError> {
        match parse(phy)? {
            Frame::JoinAccept(accept) => {
                let dev_nonce = self.joining.ok_or(ReceiveError::NotJoining)?;
                let accept = JoinAccept::open(accept, &self.config.app_key)?;
                self.joining = None;
                self.joined(&accept, dev_nonce);
                Ok(Received::Joined)
            }
            Frame::Data(frame) if frame.direction == Direction::Down => self.data(phy, &frame),
            _ => Err(ReceiveError::NoDownlink),
        }
    }

    fn data(&mut self, phy: &[u8], frame: &DataFrame<'_>) -> Result<Received, ReceiveError> {
        let session = self.session.as_mut().filter(|s| s.dev_addr == frame.dev_addr).ok_or(ReceiveError::NotForUs)?;
        let fcnt = session.counter_of(phy, frame)?;
        session.next_fcnt_down = fcnt.wrapping_add(1);
        session.last_down = Some(phy.to_vec());
        let payload = frame.decrypt(&session.keys, fcnt);
        let (commands, payload) = match frame.fport {
            Some(0) => (parse_downlink(&payload).commands, Vec::new()),
            _ => (parse_downlink(frame.fopts).commands, payload),
        };
        // The network heard the answers, for it sent after them.
        self.sticky.clear();
        self.owes_ack = frame.confirmed;
        self.obey(&commands);
        Ok(Received::Data {
            confirmed: frame.confirmed,
            ack: frame.fctrl.ack,
            f_pending: frame.fctrl.f_pending,
            fcnt,
            fport: frame.fport,
            payload,
            commands,
        })
    }

    fn obey(&mut self, commands: &Commands) {
        let outcome = self.channels.obey(commands, self.data_rate, self.config.region, self.session.as_mut());
        self.data_rate = outcome.data_rate;
        self.answers.extend(outcome.answers);
        self.sticky.extend(outcome.sticky);
    }
}

impl Session {
    /// The 32-bit counter of a downlink: not below the next expected one, and with the right MIC.
    fn counter_of(&self, phy: &[u8], frame: &DataFrame<'_>) -> Result<u32, ReceiveError> {
        let low = u32::from(frame.fcnt);
        let mut fcnt = self.next_fcnt_down & 0xffff_0000 | low;
        if fcnt < self.next_fcnt_down {
            fcnt = fcnt.wrapping_add(0x1_0000);
        }
        if frame.verify(&self.keys.nwk_s_key, fcnt) {
            return Ok(fcnt);
        }
        let before = self.next_fcnt_down.wrapping_sub(1);
        if self.last_down.is_some() && frame.verify(&self.keys.nwk_s_key, before) {
            let same = self.last_down.as_deref() == Some(phy);
            return Err(if same { ReceiveError::Repeated } else { ReceiveError::CounterReused });
        }
        Err(ReceiveError::BadMic)
    }
}
