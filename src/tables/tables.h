/*-------------------------------------------------------------------------
 *
 * tables.h
 *		Our tables, read and written directly.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#ifndef TASKSHED_TABLES_TABLES_H
#define TASKSHED_TABLES_TABLES_H

#include "postgres.h"

#include "access/tableam.h"
#include "executor/tuptable.h"
#include "nodes/execnodes.h"
#include "utils/rel.h"

#include "shared/shared.h"
#include "tables/rows.h"

/* ------------------------------------------------------------------------
 * table_shape.c
 */
/* (The lists of columns say these in small letters.) */
typedef enum ColumnNulls
{
	COLUMN_nullable,
	COLUMN_not_null
} ColumnNulls;

typedef struct ColumnShape
{
	const char *name;
	Oid			type;
	ColumnNulls nulls;
} ColumnShape;

typedef struct IndexShape
{
	bool		unique;
	int			nkeys;
	AttrNumber	keys[3];
} IndexShape;

extern bool table_shape_fits(Oid relid, int natts, const ColumnShape *columns);
extern bool table_shape_index_fits(Oid relid, Oid table, const IndexShape *shape);

/* ------------------------------------------------------------------------
 * table_writer.c
 */
typedef struct WriterState WriterState;
typedef struct Writer Writer;

/* What is kept of a table; static and zeroed to begin with. */
typedef struct WriterCache
{
	WriterState *state;
	bool		valid;
} WriterCache;

extern void table_writer_invalidate(WriterCache *cache, Oid relid);
extern Writer *table_writer_open(WriterCache *cache, Relation rel);
extern void table_writer_close(Writer *writer);
extern void table_writer_insert(Writer *writer, TupleTableSlot *slot);
extern void table_writer_insert_many(Writer *writer, TupleTableSlot **slots, int nslots);
extern void table_writer_update(Writer *writer, ItemPointer tid, TupleTableSlot *slot);
extern bool table_writer_try_insert(Writer *writer, TupleTableSlot *slot, Oid key, bool wait);

/* ------------------------------------------------------------------------
 * store.c
 */
/*
 * The version of the extension's SQL that this library is for, the same as in
 * taskshed.control; store.c compares it with that of the database.
 */
#define TASKSHED_VERSION	"1.0"

/* The indexes of our tables. */
typedef enum StoreIndex
{
	TASK_PKEY,
	TASK_KEY,
	TASK_GROUP,
	ALARM_QUEUE,
	ALARM_TASK,
	ALARM_FAILED,
	EDGE_PKEY,
	EDGE_PARENT,
	REQUEST_NUMBER,
	STORE_NINDEXES
} StoreIndex;

/* The tables, open; all but two, indexes and what writing needs are opened on demand. */
typedef struct Store
{
	LOCKMODE	lockmode;
	Relation	task;
	Relation	alarm;
	Relation	edge;			/* NULL before it is asked for */
	Relation	request;		/* likewise */
	TupleTableSlot *task_slot;
	TupleTableSlot *alarm_slot;
	TupleTableSlot *edge_slot;
	TupleTableSlot *request_slot;
	Relation	indexes[STORE_NINDEXES];
	Writer	   *task_writer;	/* NULL before the first write */
	Writer	   *alarm_writer;
	Writer	   *edge_writer;
	Writer	   *request_writer;
	int64		written_id;		/* the task whose row was written last, */
	ItemPointerData written_tid;	/* and where that is; invalid if none was */
} Store;

/* Can the tables be worked with? */
typedef enum StoreState
{
	STORE_FINE,
	STORE_ABSENT,				/* the extension is not there */
	STORE_ALTERED,				/* they are not as it has made them */
	STORE_OTHER_VERSION			/* it is not the one of this library */
} StoreState;

extern void store_relation_changed(Oid relid);
extern void store_extension_changed(void);
extern Oid	store_schema(void);
extern Oid	store_relid(const char *name);
extern bool store_is_member(Oid relid);
extern bool store_exists(void);
extern StoreState store_state(void);
extern char *store_version_mismatch(void);
extern void store_report(int elevel, StoreState state);
extern void store_require_version(void);
extern Store *store_try_open(LOCKMODE lockmode);
extern void store_lock_for_drop(void);
extern Store *store_open(LOCKMODE lockmode);
extern void store_close(Store *store, LOCKMODE lockmode);
extern Relation store_index(Store *store, StoreIndex which);
extern Oid	store_index_relid(StoreIndex which);
extern Writer *store_task_writer(Store *store);
extern Writer *store_alarm_writer(Store *store);
extern Relation store_edge(Store *store);
extern Writer *store_edge_writer(Store *store);
extern Relation store_request(Store *store);
extern Writer *store_request_writer(Store *store);
extern Oid	store_home_relid(void);
extern int64 store_new_id(void);

/* ------------------------------------------------------------------------
 * store_find.c
 */
extern bool store_sees(Snapshot snapshot, TupleTableSlot *slot);
extern bool store_find_task(Store *store, Oid owner, Datum task_id, TaskRow *row);
extern bool store_get_task(Store *store, int64 id, TaskRow *row);
extern void store_copy_alarm(Store *store, AlarmRow *row);
extern bool store_get_alarm(Store *store, int64 id, AlarmRow *row);
extern bool store_get_alarm_at(Store *store, int64 id, const ItemPointerData *alarm_tid, AlarmRow *row);
extern bool store_get_task_of(Store *store, const AlarmRow *alarm, TaskRow *row);
extern int64 *store_find_group(Store *store, Oid owner, Datum group_id, int *n);
extern int64 *store_find_owned(Store *store, Oid owner, int *n);
extern int	store_count_owned(Store *store, Oid owner, int limit, int *removed);

/* ------------------------------------------------------------------------
 * store_write.c
 */
/* Where the rows of a task were seen, and in which files. */
typedef struct RowTids
{
	bool		known;
	ItemPointerData task;
	Oid			task_file;
	ItemPointerData alarm;
	Oid			alarm_file;
	uint64		writes;			/* that this process had made then; 0: not to
								 * be relied on */
} RowTids;

extern TM_Result store_lock_alarm(Store *store, int64 id, AlarmRow *row,
								  LockWaitPolicy wait_policy);
extern void store_remember(Store *store, const TaskRow *task, const AlarmRow *alarm,
						   RowTids *tids);
extern void store_rely_on(RowTids *tids);
extern TM_Result store_relock_alarm(Store *store, int64 id, const RowTids *tids,
									AlarmRow *row, LockWaitPolicy wait_policy);
extern bool store_await_removal(Store *store, int64 id);
extern void store_insert_task(Store *store, TaskRow *row);
extern bool store_try_insert_task(Store *store, TaskRow *row, bool wait);
extern void store_update_task(Store *store, TaskRow *row);
extern void store_delete_task(Store *store, TaskRow *row);
extern void store_insert_alarm(Store *store, AlarmRow *row);
extern void store_update_alarm(Store *store, AlarmRow *row);
extern void store_delete_alarm(Store *store, AlarmRow *row);
extern bool store_try_delete_alarm_at(Store *store, int64 id, const RowTids *tids);
extern void store_delete_task_at(Store *store, int64 id, const RowTids *tids);

/* ------------------------------------------------------------------------
 * edges.c
 */
/* The edges of a child, one after the other. */
typedef struct EdgeScan
{
	Store	   *store;
	IndexScanDesc scan;
	MemoryContext rows;			/* holds the last row; or NULL */
	bool		met;			/* an edge, the last one */
	int64		parent;			/* of this parent */
} EdgeScan;

extern bool edges_exist(Store *store);
extern int64 *edges_children(Store *store, int64 parent, int *n);
extern bool edges_get(Store *store, int64 child, int64 parent, EdgeRow *row);
extern void edges_begin(Store *store, EdgeScan *scan, int64 child, int64 from, bool keep);
extern bool edges_next(EdgeScan *scan, EdgeRow *row);
extern void edges_end(EdgeScan *scan);
extern void edges_fill(EdgeRow *row, int64 child, int64 parent, Datum task_id);
extern void edges_insert(Store *store, EdgeRow *row);
extern void edges_update(Store *store, EdgeRow *row);
extern void edges_delete(Store *store, EdgeRow *row);
extern void edges_delete_all(Store *store, int64 child);

/* ------------------------------------------------------------------------
 * requests.c
 */
/* The columns of _taskshed.request. */
enum
{
	Anum_request_number = 1,
	Anum_request_id,
	Natts_request = Anum_request_id
};

/* A row of it: somebody asks for a run of a task. */
typedef struct Request
{
	int64		number;
	int64		id;				/* of the task */
	ItemPointerData tid;
} Request;

extern int64 requests_insert(Store *store, int64 id);
extern bool requests_get(Store *store, int64 number, Request *request);
extern int	requests_read(Store *store, int64 from, Request *requests, int max);
extern void requests_delete(Store *store, Request *request);

/* ------------------------------------------------------------------------
 * queue.c
 */
/* A place in an owner's part of the queue. */
typedef struct QueueKey
{
	TimestampTz run_at;
	int64		id;
} QueueKey;

static inline int
queue_key_cmp(const QueueKey *a, const QueueKey *b)
{
	if (a->run_at != b->run_at)
		return a->run_at < b->run_at ? -1 : 1;
	if (a->id != b->id)
		return a->id < b->id ? -1 : 1;
	return 0;
}

/* A task as it is read from the queue. */
typedef struct QueueEntry
{
	QueueKey	key;
	int			interruptions;	/* so many runs in a row were interrupted */
	ItemPointerData alarm_tid;	/* of its alarm; may be invalid, if unknown */
} QueueEntry;

extern int	queue_read(Store *store, Snapshot snapshot, Oid owner,
					   const QueueKey *after, QueueEntry *entries, int max);
extern Oid	queue_next_owner(Store *store, Snapshot snapshot, Oid after);
extern int64 queue_count_failed(Store *store, Snapshot snapshot, bool (*counts) (Oid owner));
extern int	queue_read_failed(Store *store, Snapshot snapshot, TimestampTz before, int64 *ids, int max);

/* ------------------------------------------------------------------------
 * copies.c
 */
/* The columns of _taskshed.home. */
enum
{
	Anum_home_database = 1,
	Anum_home_restored,
	Natts_home = Anum_home_restored
};

typedef enum HomeState
{
	HOME_EMPTY,					/* there are no tasks and no aliases */
	HOME_HERE,					/* they may run here */
	HOME_COPIED,				/* they came with a copy made by TEMPLATE */
	HOME_RESTORED				/* or with one made from a dump */
} HomeState;

static inline bool
home_is_held(HomeState state)
{
	return state == HOME_COPIED || state == HOME_RESTORED;
}

/* Where tasks that are held came from. */
typedef struct HomeOrigin
{
	List	   *databases;		/* OIDs of those that they were copied from */
	bool		known;			/* is anything known of it? */
	bool		other_server;	/* their owners' OIDs may be those of another */
} HomeOrigin;

extern void copies_relation_changed(Oid relid);
extern bool copies_is_settled(void);
extern HomeState copies_state(Store *store, HomeOrigin *origin);
extern void copies_lock(void);
extern void copies_settle(void);
extern void copies_claim(Store *store);
extern const char *copies_detail(HomeState state);
extern void copies_check_statement(const Node *statement);

/* ------------------------------------------------------------------------
 * max_tasks.c
 */
extern void max_tasks_init(void);
extern void max_tasks_note(Oid owner);
extern void max_tasks_add(Store *store, Oid owner);

#endif							/* TASKSHED_TABLES_TABLES_H */
