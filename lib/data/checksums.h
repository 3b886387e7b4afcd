#pragma once
// Checksums of large files, remembered between runs.

#include <string>

#include "core/file.h"

namespace llmtk::data {

/// checksum_file(file), read from `cache_folder`/checksums where it was computed before and the file is the same since:
/// path, size, inode and both times of change agree (the time of the last change of the inode cannot be set back).
/// A file that changed within the last two seconds is not remembered. Throws Error(file) for a file that cannot be
/// read; a cache that cannot be written is passed over.
std::string remembered_checksum(const fs::path& file, const fs::path& cache_folder);

}  // namespace llmtk::data
