// The precompiled header is built as part of this target.
