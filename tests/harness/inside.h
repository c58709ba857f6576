// tests/harness/inside.h: what tests may know of the implementation's inside, and the books: conservation, checked at
// the end of every test that has a manager.
#ifndef ZEROCP_TEST_INSIDE_H
#define ZEROCP_TEST_INSIDE_H

#include "zerocp.h"

// Checks, with a client of its own, that an instance which nobody uses at the moment has lost nothing and doubled
// nothing: used + free == total by the records, `held` chunks are used in all, allocating everything gives each free
// chunk exactly once, and when all is released again the list holds exactly the free chunks. Recovers dead clients
// first. Needs a free client slot.
void books_check(const char *instance, uint64_t held);

// The same steps by the records and the list alone, for a manager whose instance has no name any more.
void books_check_by(zcp_manager *manager, uint64_t held);

// free chunks of which there is a hint, in the list or on loan
uint32_t inside_hint_count(zcp_manager *manager, uint32_t pool);
uint32_t inside_pool_of(const zcp_chunk *chunk);
uint32_t inside_index_in_pool(const zcp_chunk *chunk);
int inside_by_index(const void *a, const void *b);                  // of two chunks, for qsort
// generation:32 | owner:11 | ticket:21; index: also of none of its chunks
uint64_t inside_state_word(zcp_manager *manager, uint32_t pool, uint32_t index);
uint64_t inside_borrow_word(zcp_manager *manager, uint32_t pool, uint32_t index, uint32_t word);
bool inside_drop_hint(zcp_manager *manager, uint32_t pool, uint32_t index);           // as if a pusher had been killed
// of its whole leaf, as if one had been killed between P0 and P1
bool inside_drop_leaf_hint(zcp_manager *manager, uint32_t pool, uint32_t index);
zcp_status inside_allocate_hinted(zcp_manager *manager, uint64_t size, zcp_chunk *chunk);          // by hints alone
uint32_t inside_wait_rounds(zcp_manager *manager, uint32_t pool);  // of waits for that pool's chunks, by all clients
void inside_count_epoch_up(zcp_manager *manager);                  // as if pools had come or gone
void inside_wake(zcp_manager *manager, uint32_t slot);             // as who frees a chunk wakes a client
void inside_scribble_sleeps(zcp_manager *manager, uint32_t slot, uint64_t seed);     // garbage where it says so
void inside_want(zcp_manager *manager, uint32_t pool);             // as if somebody had found nothing there
int inside_set_barriers(int barriers);                             // -1: this process has none; returns what it had
// of a chunk that nobody uses
void inside_set_state_word(zcp_manager *manager, uint32_t pool, uint32_t index, uint64_t word);
uint32_t inside_leases_held(zcp_manager *manager, uint32_t pool);  // leases that somebody holds
uint32_t inside_loaned_count(zcp_manager *manager, uint32_t pool); // hints that are on loan, stale ones too
// the hints of each lease that somebody holds, as garbage does
void inside_set_loans(zcp_manager *manager, uint32_t pool, uint64_t loan);
// may the calling thread release chunks that were never shared without a CAS?
bool inside_releases_quickly(zcp_manager *manager, uint32_t pool);
enum { INSIDE_LANE, INSIDE_LEASE, INSIDE_RECORD, INSIDE_COUNTS, INSIDE_DATA, INSIDE_PLACES };
// of what the calling thread touches of a chunk
void inside_places(const zcp_manager *manager, const zcp_chunk *chunk, uintptr_t places[INSIDE_PLACES]);
// of the pool that the calling thread allocated from last; 0: it does not remember
uint64_t inside_recent_chunk_size(const zcp_manager *manager);
// when the log may tell of a double release again, in ns; becomes next
uint64_t inside_release_told(zcp_manager *manager, uint64_t next);
uint32_t inside_thread_number(void);                               // of the calling thread; 0: none
uint32_t inside_thread_count(void);                                // numbers that are taken
void inside_let_segments_run(zcp_manager *manager, uint32_t count);    // as if so many pools had come and gone
size_t inside_header_bytes(void);
uint32_t inside_layout_version(void);
uint64_t inside_signature(void);                                   // of the layout
struct stat;
// as a creator does: that file is this segment's chunk segment
void inside_name_chunk_file(void *management, uint64_t device, uint64_t inode);
void inside_name_lock_file(void *management, uint64_t device, uint64_t inode);       // likewise: its lock object

// Several clients as views of one segment in plain memory, so that ThreadSanitizer sees what happens between them (it
// sees nothing between two mappings of one page). The managers work with all zcp_chunk_ calls, pool_stats and print;
// not with close, recover, check. inside_plain_free frees all clients and the segment.
typedef struct inside_plain inside_plain;
inside_plain *inside_plain_new(const zcp_config *config, uint32_t clients, uint32_t flags);
zcp_manager *inside_plain_client(inside_plain *plain, uint32_t client);
// what ended threads of living clients keep, which no ending thread finds here; all are joined
void inside_plain_leave(inside_plain *plain);
// as recovery does; the dead client's threads are joined
void inside_plain_sweep(inside_plain *plain, uint32_t sweeper, uint32_t dead);
void inside_plain_free(inside_plain *plain);

#endif
