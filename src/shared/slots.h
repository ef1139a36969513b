/*-------------------------------------------------------------------------
 *
 * slots.h
 *		The slots of workers in shared memory.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#ifndef TASKSHED_SHARED_SLOTS_H
#define TASKSHED_SHARED_SLOTS_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "port/atomics.h"
#include "storage/itemptr.h"
#include "storage/proc.h"
#include "storage/spin.h"

#include "shared/database_entry.h"

/* Tasks handed to a worker ahead, and outcomes it has not reported yet. */
#define TS_HANDED			64

/* So many runs can share a transaction at most. */
#define TS_MAX_TASKS_PER_COMMIT	TS_HANDED
#define TS_REPORTS			128

/* What became of a task that was handed to a worker. */
typedef enum TsFate
{
	TS_FATE_GONE,				/* no row left to come back to */
	TS_FATE_NEXT,				/* its row waits for next_run_at */
	TS_FATE_LOOK				/* the row was changed: read it again */
} TsFate;

typedef struct TsReport
{
	int64		id;
	TsFate		fate;
	TimestampTz next_run_at;	/* with TS_FATE_NEXT */
} TsReport;

typedef enum TsWorkerState
{
	TS_WORKER_FREE = 0,			/* the slot is not in use */
	TS_WORKER_ASKED,			/* the launcher is to start it */
	TS_WORKER_STARTING,			/* registered, not connected yet */
	TS_WORKER_READY				/* takes tasks */
} TsWorkerState;

/* With assertions all takes longer, and is to be tested nevertheless. */
#ifdef USE_ASSERT_CHECKING
#define TS_SLOWER	20
#else
#define TS_SLOWER	1
#endif

/*
 * An idle worker gets a task up to this long (us) before it is due, and waits for
 * that moment itself: one process less to be woken then.
 */
#define TS_HAND_AHEAD	1000

/*
 * One whose runs have been short lately (us) gets the next ones with it, if each can
 * be done before the next is due: up to this long (us) before.  So the scheduler
 * sleeps over several tasks.
 */
#define TS_HAND_FAR_AHEAD	10000
#define TS_SHORT_RUN	(200 * TS_SLOWER)

/* A task that a worker is to run, at its time or as soon after as it can. */
typedef struct TsHanded
{
	int64		id;
	TimestampTz run_at;
	ItemPointerData alarm_tid;	/* where its alarm was seen, or invalid */
} TsHanded;

/* A run that is done, but not committed. */
typedef struct TsMember
{
	int64		id;
	TimestampTz since;			/* when its run began */
} TsMember;

/*
 * A worker, from the scheduler's wish for it to its exit.  The generation
 * tells one use of a slot from the next.
 */
typedef struct TsWorker
{
	slock_t		mutex;			/* protects all that follows */
	TsWorkerState state;
	uint32		generation;
	TimestampTz since;			/* when it was asked for, then when started */
	Oid			database;
	Oid			role;
	bool		is_superuser;	/* as what it connects */
	int64		first_id;		/* the task for which it was asked */
	TimestampTz first_run_at;	/* when that is due */
	PGPROC	   *proc;			/* NULL before it has attached */
	int			pid;
	bool		retire;			/* is to leave after its current run */
	bool		unseen;			/* has gone, and its scheduler has not noticed */
	bool		shortage;		/* since there was not enough of something */

	/* the run in progress; 0 between runs */
	int64		running_id;
	int64		running_revision;	/* of its task, once that is read */
	TimestampTz running_scheduled_at;	/* the time that it is for */
	int			running_attempt;
	TimestampTz running_since;
	uint32		serial;			/* counts the tasks taken; never 0 in a run */
	int64		typical;		/* us that its runs take; 0: unknown */
	volatile bool timed_out;	/* it is ending since its run would not */
	bool		bystander;		/* it is ended for what is no fault of its run */
	volatile bool stuck;		/* and even that does not work */

	volatile bool ending;		/* the callback is done, its outcome is
								 * written */

	/* runs in the same transaction that are done: over at its commit */
	int			nmembers;
	TsMember	members[TS_MAX_TASKS_PER_COMMIT];

	/* the serial of a run that is to be cancelled, and a count of requests */
	pg_atomic_uint64 stop_request;

	/* tasks handed out and not taken yet, mostly in that order */
	uint32		handed_head;
	uint32		handed_tail;
	TsHanded	handed[TS_HANDED];

	/* outcomes the scheduler has not collected yet, oldest first */
	uint32		reports_head;
	uint32		reports_tail;
	TsReport	reports[TS_REPORTS];
} TsWorker;

/* What is in a slot at a moment, for those who only look. */
typedef struct SlotView
{
	TsWorkerState state;
	uint32		generation;
	TimestampTz since;			/* as in TsWorker */
	Oid			database;
	Oid			role;
	int			pid;
	bool		leaving;		/* after its run, if it is at one */
	bool		idle;			/* ready, at no run, and nothing handed to it */
	int64		running_id;		/* 0 between runs */
	TimestampTz running_since;
	uint32		serial;			/* 0: it has taken no task yet */
} SlotView;

/* A run in progress, of which it can be told later whether it still is. */
typedef struct SlotRun
{
	int			slot;
	uint32		generation;		/* of the slot */
	uint32		serial;			/* of the run in it */
	bool		can_stop;		/* its end is not just being written */
} SlotRun;

extern TsWorker *ts_my_worker;	/* in a worker; NULL elsewhere */
extern TsDatabase *ts_my_database;	/* that it serves */

extern TsWorker *slot_ask(Oid database, Oid role, bool is_superuser,
						  int64 first_id, TimestampTz first_run_at);
extern void slot_free(TsWorker *worker);
extern void slot_retire(void);
extern void slot_wake_scheduler_from_handler(void);
extern void slot_look(int slot, SlotView *view);
extern int	slot_look_runs(int slot, SlotView *view, TsMember *runs);
extern bool slot_find_run(int64 id, SlotRun *run);
extern bool slot_is_running(int64 id);
extern void slot_request_stop(const SlotRun *run);
extern bool slot_send_away(int slot, uint32 generation, bool if_idle);

#endif							/* TASKSHED_SHARED_SLOTS_H */
