//! What is said below the flags of commands that work on a store.

pub(super) const MIGRATE_HELP: &str = "\
A migration only adds, so servers of the version before go on, and you can go back to it. Once all workers run this version,
--finish lets them write what every uplink writes in a form that the version before cannot read: a quarter of the bytes. It is
refused while a worker of the version before is at work. After that there is no way back to that version; a store that this
version made is finished from the beginning. A CQL store's workers
begin within a minute, an SQLite store's when they are started the next time. What was written before is read as ever, and written
anew when it changes.";

pub(super) const EXPORT_HELP: &str = "\
The file is JSON Lines. It holds device keys, session keys, password hashes and the key that signs log-ins, so only its
owner may read it (mode 0600): keep it as you would keep those.
An export that was interrupted is gone on with when it is run again, unless servers have been at work since.
Left out are receptions (kept for an hour), leases, what servers say of themselves, and logs of frames.
To move, stop all servers first. With servers at work it is a backup: each device is as it was when it was read.";

pub(super) const IMPORT_HELP: &str = "\
The whole file is checked before anything is written. The store must be empty; an import that was interrupted is gone on
with when it is run again, and no server starts on the store before it is finished.
No FCntDown may ever carry two payloads under one session key. A backup does not know what the network sent after it was
made, so by default an import lets each session's FCntDown, and each device's JoinNonce, skip ahead by 1000. A device of
LoRaWAN 1.0.x takes no downlink whose FCntDown is 16384 (MAX_FCNT_GAP) or more above the last one that it heard, so the
most is 16383. A counter never wraps: one that would pass its end stays there, and is reported.
With --keep-counters an export of the new store has the same bytes as the file.";
