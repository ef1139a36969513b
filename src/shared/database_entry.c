/*-------------------------------------------------------------------------
 *
 * database_entry.c
 *		The databases that have schedulers or want one, each in an entry of shared
 * memory.
 *
 * A TsDatabase is where the sessions of a database and its scheduler meet:
 * sessions leave notes of what they committed and wake the scheduler, which
 * leaves its figures for the view status.  Entries are allocated under
 * ts_shared->lock and freed when the launcher finds that the database has no
 * use for one.  Its states, which database_set_state changes:
 *
 *		FREE -> IDLE		the entry is given to a database
 *		IDLE -> WANTED		somebody has asked for a scheduler
 *		IDLE -> FREE		the launcher finds that nobody needs the entry
 *		WANTED -> STARTING	the launcher is about to register the process
 *		WANTED -> IDLE		it finds that there is no such database, or a closed one
 *		STARTING -> RUNNING	the scheduler has attached
 *		STARTING -> WANTED	it will not: there was no room for it, it was sent away
 *						on its way, or it never came
 *		RUNNING -> ASLEEP	it leaves since there is nothing to do until
 *						start_at, which a commit may bring forward
 *		RUNNING -> IDLE		it has found no extension that it could work with, or
 *						a closed database
 *		RUNNING -> WANTED	it has ended for any other reason
 *		ASLEEP -> WANTED	that time has come
 *		ASLEEP -> IDLE		no entry was free, and this one, of a database without
 *						tasks, is given to another
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/timestamp.h"

#include "shared/shared.h"

/* Return the database that an entry is given to, or InvalidOid if it is to none. */
Oid
database_oid(TsDatabase *db)
{
	Oid			database;

	SpinLockAcquire(&db->mutex);
	database = db->state != TS_DB_FREE ? db->oid : InvalidOid;
	SpinLockRelease(&db->mutex);
	return database;
}

/*
 * Return the entry of a database, or NULL.  It may be freed any time unless the
 * caller holds a reservation or ts_shared->lock.
 */
TsDatabase *
database_find(Oid database)
{
	static TsDatabase *last = NULL;

	Assert(OidIsValid(database));
	if (last != NULL && database_oid(last) == database)
		return last;
	for (int i = 0; i < TS_MAX_DATABASES; i++)
	{
		TsDatabase *db = &ts_shared->databases[i];

		if (database_oid(db) == database)
			return last = db;
	}
	return NULL;
}

/*
 * Change the state of an entry, whose mutex the caller holds.  The head of this
 * file says what may follow what.
 */
void
database_set_state(TsDatabase *db, TsDatabaseState state)
{
	switch (db->state)
	{
		case TS_DB_FREE:
			Assert(state == TS_DB_IDLE);
			break;
		case TS_DB_IDLE:
			Assert(state == TS_DB_WANTED || state == TS_DB_FREE);
			break;
		case TS_DB_ASLEEP:
			Assert(state == TS_DB_WANTED || state == TS_DB_IDLE);
			break;
		case TS_DB_WANTED:
			Assert(state == TS_DB_STARTING || state == TS_DB_IDLE);
			break;
		case TS_DB_STARTING:
			Assert(state == TS_DB_RUNNING || state == TS_DB_WANTED);
			break;
		case TS_DB_RUNNING:
			Assert(state == TS_DB_ASLEEP || state == TS_DB_WANTED || state == TS_DB_IDLE);
			break;
	}
	db->state = state;
}

/*
 * Give a database a free entry, or one that can be spared.  Return NULL if there is
 * none.  The caller holds ts_shared->lock exclusively.
 */
static TsDatabase *
database_allocate(Oid database)
{
	Assert(LWLockHeldByMeInMode(ts_shared->lock, LW_EXCLUSIVE));
	for (int i = 0; i < 2 * TS_MAX_DATABASES; i++)
	{
		TsDatabase *db = &ts_shared->databases[i % TS_MAX_DATABASES];

		SpinLockAcquire(&db->mutex);
		if (db->state == TS_DB_FREE ||
			(i >= TS_MAX_DATABASES && db->state == TS_DB_ASLEEP && db->empty &&
			 db->scheduler == NULL && db->reservations == 0))
		{
			database_set_state(db, TS_DB_IDLE);
			db->oid = database;
			db->reservations = 0;
			db->holds = 0;
			db->start_at = 0;
			db->bad_starts = 0;
			db->scheduler = NULL;
			db->scheduler_pid = 0;
			db->since = 0;
			db->wanted_again = false;
			db->outdated = false;
			db->give_way = TS_STAY;
			db->resting = false;
			db->worked_at = 0;
			db->empty = false;
			db->locked_out = false;
			db->noted = false;
			db->alarm = DT_NOBEGIN;
			db->hungry = false;
			db->expects_report = false;
			db->notes_head = db->notes_tail = 0;
			db->reread_from = DT_NOEND;
			db->unheard = false;
			db->stopped = false;
			db->disabled = false;
			db->held = false;
			db->due = 0;
			db->oldest_due = DT_NOEND;
			db->next_wakeup = DT_NOEND;
			db->failed = 0;
			memset(&db->counts, 0, sizeof(db->counts));
			db->message[0] = '\0';
			SpinLockRelease(&db->mutex);
			return db;
		}
		SpinLockRelease(&db->mutex);
	}
	return NULL;
}

/*
 * Return the entry of a database, and keep it from being freed until
 * database_release.  Allocate one if there is none yet.  Return NULL if there
 * is no room.
 */
TsDatabase *
database_try_reserve(Oid database)
{
	TsDatabase *db;

	LWLockAcquire(ts_shared->lock, LW_SHARED);
	db = database_find(database);
	if (db == NULL)
	{
		LWLockRelease(ts_shared->lock);
		LWLockAcquire(ts_shared->lock, LW_EXCLUSIVE);
		db = database_find(database);
		if (db == NULL)
			db = database_allocate(database);
	}
	if (db != NULL)
	{
		SpinLockAcquire(&db->mutex);
		db->reservations++;
		SpinLockRelease(&db->mutex);
	}
	LWLockRelease(ts_shared->lock);
	return db;
}

/* Do the same, or raise an error if there is no room: 53400. */
TsDatabase *
database_reserve(Oid database)
{
	TsDatabase *db = database_try_reserve(database);

	if (db == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("taskshed serves at most %d databases of a server",
						TS_MAX_DATABASES),
				 errhint("Drop the extension, or the tasks, in databases that do not need them.")));
	return db;
}

void
database_release(TsDatabase *db)
{
	SpinLockAcquire(&db->mutex);
	Assert(db->reservations > 0);
	db->reservations--;
	SpinLockRelease(&db->mutex);
}

/* Return whether our processes must stay out of a database. */
bool
database_is_on_hold(TsDatabase *db)
{
	bool		held;

	SpinLockAcquire(&db->mutex);
	held = (db->holds > 0);
	SpinLockRelease(&db->mutex);
	return held;
}

/* Free the entries that nobody needs.  Only the launcher calls this. */
void
database_free_idle(void)
{
	LWLockAcquire(ts_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < TS_MAX_DATABASES; i++)
	{
		TsDatabase *db = &ts_shared->databases[i];

		SpinLockAcquire(&db->mutex);
		if (db->state == TS_DB_IDLE && db->reservations == 0 && !db->stopped)
			database_set_state(db, TS_DB_FREE);
		SpinLockRelease(&db->mutex);
	}
	LWLockRelease(ts_shared->lock);
}

/*
 * Have the launcher start a scheduler, unless the database has one.  Somebody
 * may just be finding out that it can have none, by what was so before the
 * caller's commit: the wish is remembered, and has him look again.
 */
void
database_want_scheduler(TsDatabase *db)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		wake = false;

	SpinLockAcquire(&db->mutex);
	if (db->state == TS_DB_IDLE)
	{
		database_set_state(db, TS_DB_WANTED);
		db->start_at = now;
		wake = true;
	}
	else if (!db->wanted_again)
	{
		db->wanted_again = true;
		wake = (db->state == TS_DB_WANTED);
	}
	SpinLockRelease(&db->mutex);
	if (wake)
		shared_wake_launcher();
}

/* Have the scheduler of a database come back now, if it is away. */
void
database_end_sleep(TsDatabase *db)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		wake = false;

	SpinLockAcquire(&db->mutex);
	if (db->state == TS_DB_ASLEEP && now < db->start_at)
	{
		db->start_at = now;
		wake = true;
	}
	SpinLockRelease(&db->mutex);
	if (wake)
		shared_wake_launcher();
}

/* Tell the launcher that a wish for a worker finds no slot, or that all do. */
void
database_set_unheard(TsDatabase *db, bool unheard)
{
	SpinLockAcquire(&db->mutex);
	db->unheard = unheard;
	SpinLockRelease(&db->mutex);
	shared_wake_launcher();
}

/* Say in the view status what keeps tasks from running; NULL: nothing does. */
void
database_set_message(TsDatabase *db, const char *message)
{
	SpinLockAcquire(&db->mutex);
	strlcpy(db->message, message != NULL ? message : "", sizeof(db->message));
	SpinLockRelease(&db->mutex);
}

/* Return whether the view status has that message. */
bool
database_has_message(TsDatabase *db, const char *message)
{
	bool		has;

	SpinLockAcquire(&db->mutex);
	has = (strcmp(db->message, message) == 0);
	SpinLockRelease(&db->mutex);
	return has;
}

void
database_wake_scheduler(TsDatabase *db)
{
	PGPROC	   *scheduler;

	SpinLockAcquire(&db->mutex);
	scheduler = db->scheduler;
	SpinLockRelease(&db->mutex);
	if (scheduler != NULL)
		SetLatch(&scheduler->procLatch);
}
