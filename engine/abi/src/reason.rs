//! Why a frame was dropped, and why a link was closed. Each reason is a counter; the first kind also travels inside
//! undeliverable notices (`docs/wire-extensions.md`).

crate::numbered! {
    /// Why a frame did not reach what its route names.
    DropReason "drop reason" {
        /// Said to peers that are neither loopback nor authenticated, whatever the reason.
        0 NotDelivered "not_delivered",
        /// Nothing has this address on this node.
        1 NoSuchAddress "no_such_address",
        /// The address exists, but the link that the frame came in on may not reach it (`wire.md` A.7).
        2 NotAdmitted "not_admitted",
        /// A route has more addresses than the limit, which is also the loop guard.
        3 RouteTooLong "route_too_long",
        /// The frame would grow past 16 MiB on its way out.
        4 GrewTooLarge "grew_too_large",
        /// The route ends at an address that only forwards.
        5 RouteEnded "route_ended",
        /// No transit rule admits dialing this TCP address for this peer.
        6 TransitRefused "transit_refused",
        /// The ingress link already holds as many transit links as it may.
        7 TransitLimit "transit_limit",
        /// The name in a TCP address did not resolve.
        8 Unresolved "unresolved",
        /// The TCP address refused the connection or is unreachable.
        9 ConnectFailed "connect_failed",
        /// The TCP address did not answer within the dial limit.
        10 ConnectTimedOut "connect_timed_out",
        /// What listens at the TCP address is not a node: it sent no preamble or a wrong one.
        11 NotANode "not_a_node",
        /// A service could not read its payload.
        12 BadPayload "bad_payload",
        /// Control could not take more punts from this link.
        13 PuntLimit "punt_limit",
        /// The link that should have carried the frame closed first.
        14 LinkClosed "link_closed",
        /// The transport type of the next address is not served (UDP and others).
        15 UnsupportedTransport "unsupported_transport",
        /// The text of a TCP address is not `host:port`.
        16 BadAddress "bad_address",
        /// A record of a channel was not sealed by the peer, or was changed on its way.
        17 NotGenuine "not_genuine",
        /// A record of a channel was received before.
        18 Replayed "replayed",
        /// A record of a channel is too old or too far ahead (`wire.md` E.6).
        19 OutsideWindow "outside_window",
        /// What a genuine record says is no message of a channel.
        20 BadPlaintext "bad_plaintext",
        /// The channel that should have carried the message has ended.
        21 ChannelClosed "channel_closed",
        /// More came for a channel before its handshake was complete than waits for that.
        22 ParkedLimit "parked_limit",
        /// A guard does not let the sender pass: no policy grants it this place, or not any more.
        23 PolicyDenied "policy_denied",
    }
}

crate::numbered! {
    /// Why a link was closed.
    CloseReason "close reason" {
        /// The peer closed it between two frames.
        1 PeerClosed "peer_closed",
        /// The peer closed it inside a frame, or the connection was reset.
        2 Reset "reset",
        /// The peer's first byte is not version 1 (`wire.md` A.1).
        3 BadVersion "bad_version",
        /// No preamble arrived in time.
        4 PreambleTimeout "preamble_timeout",
        /// A frame claims more than 16 MiB.
        5 FrameTooLarge "frame_too_large",
        /// A frame is empty or is not a transport message.
        6 Malformed "malformed",
        /// A frame that began did not complete at the minimum rate.
        7 SlowFrame "slow_frame",
        /// The peer did not take what was sent to it.
        8 SlowPeer "slow_peer",
        /// Memory for unfinished frames ran out and this link had waited longest.
        9 AssemblyLimit "assembly_limit",
        /// Control asked for it.
        10 ByControl "by_control",
        /// The node drains.
        11 Drained "drained",
        /// Sending failed.
        12 SendFailed "send_failed",
        /// A transit link whose ingress link is gone, or whose peer's channel no longer passes the guard.
        13 IngressGone "ingress_gone",
        /// It never came up: the dial was refused, timed out, or met no node.
        14 DialFailed "dial_failed",
        /// The node holds as many links as it may.
        15 LinkLimit "link_limit",
        /// A portal connection: both directions are over.
        16 PortalDone "portal_done",
        /// A portal connection: the other end's connection is over or failed.
        17 PortalDisconnected "portal_disconnected",
        /// A portal connection: the link or the channel that carried it has ended.
        18 CarrierGone "carrier_gone",
        /// A portal connection: none of the outlet's targets could be reached.
        19 TargetFailed "target_failed",
        /// A portal connection: its inlet had no way, or its outlet did not answer, in time.
        20 PortalUnanswered "portal_unanswered",
        /// A portal connection: its inlet or its outlet was removed.
        21 PortalRemoved "portal_removed",
        /// A portal connection: a guard does not let the peer of its channel pass, or not any more.
        22 PortalDenied "portal_denied",
    }
}
