/*-------------------------------------------------------------------------
 *
 * database_entry.h
 *		The entries of databases in shared memory.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#ifndef TASKSHED_SHARED_DATABASE_ENTRY_H
#define TASKSHED_SHARED_DATABASE_ENTRY_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "storage/proc.h"
#include "storage/spin.h"

/* Databases that have a scheduler, or tasks for which one will be started. */
#define TS_MAX_DATABASES	256

/* Notes of committed changes that a scheduler has not taken yet. */
#define TS_NOTES			1024

/*
 * One task was written: it is to run at run_at, or is not any more.  Or somebody asks for a
 * run of one: then it has the number of that request as its id, and DT_NOBEGIN, so that all
 * is read again if there is no room for it.
 */
typedef struct TsNote
{
	TimestampTz run_at;
	int64		id;
	Oid			owner;
	bool		gone;
	bool		request;
} TsNote;

/* Counts since the server's start, added to by workers as they go. */
typedef struct TsCounts
{
	int64		runs_ok;
	int64		runs_failed;
	TimestampTz last_failure_at;
} TsCounts;

/* A scheduler is back this long (us) before it has something to do. */
#define IDLE_EXIT_LEAD	(2 * USECS_PER_SEC)

typedef enum TsDatabaseState
{
	TS_DB_FREE = 0,				/* the entry is not in use */
	TS_DB_IDLE,					/* has no scheduler, wants none */
	TS_DB_ASLEEP,				/* has none, and is to have one at start_at */
	TS_DB_WANTED,				/* waits for one, not to be started before
								 * start_at */
	TS_DB_STARTING,				/* the launcher has asked for one */
	TS_DB_RUNNING				/* has one */
} TsDatabaseState;

/* Has a scheduler been asked to leave for that of another database? */
typedef enum TsGiveWay
{
	TS_STAY = 0,
	TS_GIVE_WAY_IDLE,			/* if it has nothing to do */
	TS_GIVE_WAY					/* it has had its turn */
} TsGiveWay;

/* A database that has, had or is to get a scheduler. */
typedef struct TsDatabase
{
	/* protects all that follows, where nothing else is said */
	slock_t		mutex;
	TsDatabaseState state;		/* changed by database_set_state only */

	/*
	 * Changed by database_allocate only, of an entry that is free or asleep
	 * and not reserved.  So it may be read without the mutex by who has
	 * reserved the entry, by its scheduler, and, unless the database is
	 * asleep, by the launcher, which alone frees entries.
	 */
	Oid			oid;
	int			reservations;	/* transactions about to leave notes */
	int			holds;			/* no process of ours may be there if > 0 */
	TimestampTz start_at;		/* of the next scheduler, if it has none */
	int			bad_starts;		/* starts in a row that soon ended */
	PGPROC	   *scheduler;		/* NULL without one; handlers of signals read
								 * it without the mutex */
	int			scheduler_pid;
	TimestampTz since;			/* when it came */
	bool		wanted_again;	/* somebody has asked for one since it was
								 * looked whether there can be one */
	bool		outdated;		/* it has old settings, and is to leave */
	TsGiveWay	give_way;
	bool		resting;		/* nothing is going on, nor due in a moment */
	TimestampTz worked_at;		/* when there last was, or a commit told of
								 * something */

	/* what a scheduler has left behind that is away, with TS_DB_ASLEEP */
	bool		empty;			/* no task at all that could become due */
	bool		locked_out;		/* tasks wait for a change of roles */

	/* set by commits that leave something, cleared when that is taken */
	bool		noted;

	/* what the scheduler sleeps until; DT_NOBEGIN while it is awake */
	TimestampTz alarm;
	bool		hungry;			/* it waits for a worker that has no more to
								 * do, */
	bool		expects_report; /* and for any report */

	/* notes for the scheduler, oldest first */
	uint32		notes_head;
	uint32		notes_tail;
	TsNote		notes[TS_NOTES];

	/* reread the queue from here: notes were lost; DT_NOEND if none were */
	TimestampTz reread_from;

	int			history_part;	/* where workers record runs */

	bool		unheard;		/* wants a worker, and all slots are in use */
	bool		stopped;		/* no scheduler is of use, as message says;
								 * with TS_DB_IDLE */

	/* what the view status shows */
	bool		disabled;
	bool		held;			/* its tasks, since they came with a copy */
	int			due;
	TimestampTz oldest_due;		/* DT_NOEND if none */
	TimestampTz next_wakeup;	/* DT_NOEND if none */
	int64		failed;			/* tasks, as last counted */
	TsCounts	counts;
	char		message[256];
} TsDatabase;

extern TsDatabase *database_find(Oid database);
extern TsDatabase *database_reserve(Oid database);
extern TsDatabase *database_try_reserve(Oid database);
extern Oid	database_oid(TsDatabase *db);
extern void database_set_state(TsDatabase *db, TsDatabaseState state);
extern bool database_is_on_hold(TsDatabase *db);
extern void database_release(TsDatabase *db);
extern void database_free_idle(void);
extern void database_want_scheduler(TsDatabase *db);
extern void database_end_sleep(TsDatabase *db);
extern void database_wake_scheduler(TsDatabase *db);
extern void database_set_unheard(TsDatabase *db, bool unheard);
extern void database_set_message(TsDatabase *db, const char *message);
extern bool database_has_message(TsDatabase *db, const char *message);

#endif							/* TASKSHED_SHARED_DATABASE_ENTRY_H */
