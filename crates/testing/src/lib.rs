//! What the tests of trainlock share: contexts, output filters and a server with faults.
