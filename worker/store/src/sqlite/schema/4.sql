-- Whose turn it is, without ranking all devices that have events waiting.
CREATE INDEX pending_device_by_first ON pending_device (integration, first);
