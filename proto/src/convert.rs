//! Conversions between the wire's messages and our types. The way in checks; the way out cannot fail.
