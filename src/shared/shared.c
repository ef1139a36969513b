/*-------------------------------------------------------------------------
 *
 * shared.c
 *		Shared memory: the databases that have schedulers, and the slots of
 *		their workers.
 *
 * A TsDatabase is where the sessions of a database and its scheduler meet:
 * sessions leave notes of what they committed and wake the scheduler, which
 * leaves its figures for the view status.  Entries are allocated under
 * ts_shared->lock and freed when the launcher finds that the database has no
 * use for one.  Its states:
 *
 *		IDLE -> WANTED		somebody has asked for a scheduler
 *		WANTED -> STARTING	the launcher has registered the process
 *		STARTING -> RUNNING	it has attached
 *		STARTING -> WANTED	it will not: sent away on its way, or never come
 *		RUNNING -> ASLEEP	it leaves since there is nothing to do until
 *							start_at, which a commit may bring forward
 *		ASLEEP -> WANTED	that time has come
 *		RUNNING -> WANTED	it has ended for any other reason
 *		any -> IDLE			there is no extension, or no database
 *
 * If there are no more entries, a database that is asleep and has no tasks loses
 * its own.
 *
 * A TsWorker is where a scheduler and one of its workers meet: the scheduler
 * hands tasks out, the worker reports what became of them.  A slot is used
 * like this:
 *
 *		FREE -> ASKED		the scheduler wants a worker for a role
 *		ASKED -> FREE		it has changed its mind
 *		ASKED -> STARTING	the launcher has registered the process
 *		STARTING -> READY	the worker has connected
 *		any -> FREE			the worker has left (its exit callback, which is
 *							registered before it connects and so runs after
 *							its transaction is gone), or the launcher finds
 *							that it never came up
 *
 * Each entry has a spinlock for its own fields; nobody holds two of them, and
 * nothing is done under one but loads and stores.  ts_shared->lock is taken
 * before a spinlock, never after it.
 *
 * After a crash of any process the postmaster builds all of this anew.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "portability/instr_time.h"
#include "postmaster/bgworker_internals.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/shmem.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "taskshed.h"

TsShared   *ts_shared = NULL;

/* ts_shared->reloads when this process has last read its settings. */
static bool has_read_settings = false;
static uint32 reloads_noted = 0;

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

static Size
shared_size(void)
{
	return add_size(MAXALIGN(add_size(offsetof(TsShared, workers),
									  mul_size(max_worker_processes, sizeof(TsWorker)))),
					mul_size(max_worker_processes, sizeof(Suspect)));
}

static void
shared_request(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();
	RequestAddinShmemSpace(shared_size());
	RequestNamedLWLockTranche("taskshed", 2);
}

static void
shared_startup(void)
{
	bool		found;

	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	ts_shared = ShmemInitStruct("taskshed", shared_size(), &found);
	if (!found)
	{
		memset(ts_shared, 0, shared_size());
		pg_atomic_init_u32(&ts_shared->role_changes, 0);
		pg_atomic_init_u32(&ts_shared->reloads, 0);
		pg_atomic_init_u32(&ts_shared->unnamed_prepared, 0);
		ts_shared->lock = &GetNamedLWLockTranche("taskshed")[0].lock;
		ts_shared->quota_lock = &GetNamedLWLockTranche("taskshed")[1].lock;
		pg_atomic_init_u32(&ts_shared->quota_counts, 0);
		ts_shared->nworkers = max_worker_processes;
		ts_shared->suspects = (Suspect *)
			((char *) ts_shared + MAXALIGN(offsetof(TsShared, workers) +
										   max_worker_processes * sizeof(TsWorker)));
		SpinLockInit(&ts_shared->mutex);
		SpinLockInit(&ts_shared->prepared_mutex);
		for (int i = 0; i < TS_MAX_DATABASES; i++)
			SpinLockInit(&ts_shared->databases[i].mutex);
		for (int i = 0; i < ts_shared->nworkers; i++)
		{
			SpinLockInit(&ts_shared->workers[i].mutex);
			pg_atomic_init_u64(&ts_shared->workers[i].stop_request, 0);
		}
	}
	LWLockRelease(AddinShmemInitLock);

	if (!found && !IsBinaryUpgrade)
		suspects_startup();
}

/* Asks for the memory; only while shared_preload_libraries are loaded. */
void
shared_init(void)
{
	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = shared_request;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = shared_startup;
}

static bool
shared_is_database(TsDatabase *db, Oid database)
{
	bool		match;

	SpinLockAcquire(&db->mutex);
	match = (db->state != TS_DB_FREE && db->oid == database);
	SpinLockRelease(&db->mutex);
	return match;
}

/*
 * The entry of a database, or NULL.  It may be freed any time unless the
 * caller holds a reservation or ts_shared->lock.
 */
TsDatabase *
shared_find_database(Oid database)
{
	static TsDatabase *last = NULL;

	if (last != NULL && shared_is_database(last, database))
		return last;
	for (int i = 0; i < TS_MAX_DATABASES; i++)
	{
		if (shared_is_database(&ts_shared->databases[i], database))
			return last = &ts_shared->databases[i];
	}
	return NULL;
}

/*
 * A free entry made a database's, or one that could be spared, or NULL.
 * ts_shared->lock is held exclusively.
 */
static TsDatabase *
shared_allocate_database(Oid database)
{
	for (int i = 0; i < 2 * TS_MAX_DATABASES; i++)
	{
		TsDatabase *db = &ts_shared->databases[i % TS_MAX_DATABASES];

		SpinLockAcquire(&db->mutex);
		if (db->state == TS_DB_FREE ||
			(i >= TS_MAX_DATABASES && db->state == TS_DB_ASLEEP && db->empty &&
			 db->scheduler == NULL && db->reservations == 0))
		{
			db->state = TS_DB_IDLE;
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
 * The entry of a database, allocated if there is none yet, and kept from
 * being freed until shared_release_database.  NULL if there is no room.
 */
TsDatabase *
shared_try_reserve_database(Oid database)
{
	TsDatabase *db;

	LWLockAcquire(ts_shared->lock, LW_SHARED);
	db = shared_find_database(database);
	if (db == NULL)
	{
		LWLockRelease(ts_shared->lock);
		LWLockAcquire(ts_shared->lock, LW_EXCLUSIVE);
		db = shared_find_database(database);
		if (db == NULL)
			db = shared_allocate_database(database);
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

/* The same, or an error: 53400. */
TsDatabase *
shared_reserve_database(Oid database)
{
	TsDatabase *db = shared_try_reserve_database(database);

	if (db == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("taskshed serves at most %d databases of a server",
						TS_MAX_DATABASES),
				 errhint("Drop the extension, or the tasks, in databases that do not need them.")));
	return db;
}

void
shared_release_database(TsDatabase *db)
{
	SpinLockAcquire(&db->mutex);
	Assert(db->reservations > 0);
	db->reservations--;
	SpinLockRelease(&db->mutex);
}

/* Must our processes stay out of a database? */
bool
shared_is_on_hold(TsDatabase *db)
{
	bool		held;

	SpinLockAcquire(&db->mutex);
	held = (db->holds > 0);
	SpinLockRelease(&db->mutex);
	return held;
}

/* Frees the entries that nobody needs.  Only the launcher calls this. */
void
shared_free_idle_databases(void)
{
	LWLockAcquire(ts_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < TS_MAX_DATABASES; i++)
	{
		TsDatabase *db = &ts_shared->databases[i];

		SpinLockAcquire(&db->mutex);
		if (db->state == TS_DB_IDLE && db->reservations == 0 && !db->stopped)
			db->state = TS_DB_FREE;
		SpinLockRelease(&db->mutex);
	}
	LWLockRelease(ts_shared->lock);
}

/*
 * Has the launcher start a scheduler unless the database has one.  Somebody may
 * just be finding out that it can have none, by what was so before the caller's
 * commit: the wish is remembered, and has him look again.
 */
void
shared_want_scheduler(TsDatabase *db)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		wake = false;

	SpinLockAcquire(&db->mutex);
	if (db->state == TS_DB_IDLE)
	{
		db->state = TS_DB_WANTED;
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

/* If the scheduler of a database is away, it is to come back now. */
void
shared_end_sleep(TsDatabase *db)
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

/* Tells the launcher that a wish for a worker finds no slot, or that all do. */
void
shared_set_unheard(TsDatabase *db, bool unheard)
{
	SpinLockAcquire(&db->mutex);
	db->unheard = unheard;
	SpinLockRelease(&db->mutex);
	shared_wake_launcher();
}

/* Says in the view status what keeps tasks from running; NULL: nothing does. */
void
shared_set_message(TsDatabase *db, const char *message)
{
	SpinLockAcquire(&db->mutex);
	strlcpy(db->message, message != NULL ? message : "", sizeof(db->message));
	SpinLockRelease(&db->mutex);
}

void
shared_wake_launcher(void)
{
	PGPROC	   *launcher;

	SpinLockAcquire(&ts_shared->mutex);
	launcher = ts_shared->launcher;
	SpinLockRelease(&ts_shared->mutex);
	if (launcher != NULL)
		SetLatch(&launcher->procLatch);
}

/* Has the launcher look into all databases that can be connected to. */
void
shared_look_around(void)
{
	SpinLockAcquire(&ts_shared->mutex);
	ts_shared->look_around = true;
	SpinLockRelease(&ts_shared->mutex);
	shared_wake_launcher();
}

void
shared_wake_scheduler(TsDatabase *db)
{
	PGPROC	   *scheduler;

	SpinLockAcquire(&db->mutex);
	scheduler = db->scheduler;
	SpinLockRelease(&db->mutex);
	if (scheduler != NULL)
		SetLatch(&scheduler->procLatch);
}

/*
 * Has all schedulers look up what they know of roles.  Of those that are away,
 * which do so when they come, only those are called that have tasks waiting for
 * that: anybody can change roles all the time.
 */
void
shared_tell_role_change(void)
{
	pg_atomic_fetch_add_u32(&ts_shared->role_changes, 1);
	for (int i = 0; i < TS_MAX_DATABASES; i++)
	{
		TsDatabase *db = &ts_shared->databases[i];
		bool		locked_out;

		SpinLockAcquire(&db->mutex);
		locked_out = db->locked_out;
		SpinLockRelease(&db->mutex);
		if (locked_out)
			shared_end_sleep(db);
		shared_wake_scheduler(db);
	}
}

/*
 * May a database have one more slot?  There are more of them than processes
 * that we can have, but wishes for workers take some, too.  The last are for
 * databases that have none.
 */
static bool
shared_may_ask(Oid database)
{
	int			nfree = 0;
	int			nown = 0;
	int			ndatabases = 0;

	for (int i = 0; i < ts_shared->nworkers; i++)
	{
		TsWorker   *worker = &ts_shared->workers[i];

		SpinLockAcquire(&worker->mutex);
		if (worker->state == TS_WORKER_FREE)
			nfree++;
		else if (worker->database == database)
			nown++;
		SpinLockRelease(&worker->mutex);
	}
	for (int i = 0; i < TS_MAX_DATABASES; i++)
	{
		TsDatabase *db = &ts_shared->databases[i];

		SpinLockAcquire(&db->mutex);
		if (db->state == TS_DB_RUNNING)
			ndatabases++;
		SpinLockRelease(&db->mutex);
	}
	return nown == 0 || nfree > ndatabases;
}

/*
 * Asks the launcher for a worker, because of a task.  Returns its slot, or
 * NULL when there is none left for this database.  Only the database's
 * scheduler calls this.
 *
 * A slot whose last worker's end its own scheduler has not seen still tells
 * what that worker was at.  Other databases take such slots when there are no
 * others, and this one when it has seen it.
 */
TsWorker *
shared_ask_worker(Oid database, Oid role, bool is_superuser,
				  int64 first_id, TimestampTz first_run_at)
{
	TimestampTz now = GetCurrentTimestamp();
	TsWorker   *found = NULL;
	int			nslots = ts_shared->nworkers;
	bool		may;

	LWLockAcquire(ts_shared->lock, LW_EXCLUSIVE);
	may = shared_may_ask(database);
	for (int i = 0; may && found == NULL && i < 2 * nslots; i++)
	{
		TsWorker   *worker = &ts_shared->workers[i % nslots];

		SpinLockAcquire(&worker->mutex);
		if (worker->state == TS_WORKER_FREE &&
			(!worker->unseen || (i >= nslots && worker->database != database)))
		{
			found = worker;
			worker->state = TS_WORKER_ASKED;
			worker->unseen = false;
			worker->since = now;
			worker->generation++;
			worker->database = database;
			worker->role = role;
			worker->is_superuser = is_superuser;
			worker->first_id = first_id;
			worker->first_run_at = first_run_at;
			worker->proc = NULL;
			worker->pid = 0;
			worker->retire = false;
			worker->shortage = false;
			worker->running_id = 0;
			worker->running_revision = 0;
			worker->running_since = 0;
			worker->timed_out = false;
			worker->bystander = false;
			worker->stuck = false;
			pg_atomic_write_u64(&worker->stop_request, 0);
			worker->serial = 0;
			worker->handed_head = worker->handed_tail = 0;
			worker->reports_head = worker->reports_tail = 0;
		}
		SpinLockRelease(&worker->mutex);
	}
	LWLockRelease(ts_shared->lock);

	if (found != NULL)
		shared_wake_launcher();
	return found;
}

/*
 * Gives a slot back and tells the scheduler, which looks after whatever the
 * worker has left undone.  running_id stays, to say what it was at.
 */
void
shared_free_worker(TsWorker *worker)
{
	TsDatabase *db;
	Oid			database;

	SpinLockAcquire(&worker->mutex);
	database = worker->database;
	worker->state = TS_WORKER_FREE;
	worker->unseen = true;
	worker->proc = NULL;
	worker->pid = 0;
	SpinLockRelease(&worker->mutex);

	db = shared_find_database(database);
	if (db != NULL)
		shared_wake_scheduler(db);
}

/*
 * For our own processes when they have connected: they have a setting of that
 * value, whatever has been set for the role or database.  Does nothing where
 * the server has no such setting.
 */
void
shared_override_setting(const char *name, const char *value)
{
	if (GetConfigOption(name, true, false) != NULL)
		SetConfigOption(name, value, PGC_SUSET, PGC_S_OVERRIDE);
}

/*
 * For the loops of our processes: serves interrupts and reloads settings.
 * Asked to terminate it leaves without a word in the log, as core's own
 * background processes do.
 */
void
shared_process_interrupts(void)
{
	if (ProcDiePending)
	{
		ts_debug(DEBUG1, "process leaves: it was asked to terminate");
		proc_exit(1);
	}
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		reloads_noted = pg_atomic_read_u32(&ts_shared->reloads);
		has_read_settings = true;
		ProcessConfigFile(PGC_SIGHUP);
	}
}

/*
 * Has this process got the settings that the launcher has seen?  It may be told
 * of a reload later than that, or may have come with old ones while it was told.
 * If it is not known to have them it reads them when it next serves interrupts.
 */
bool
shared_has_settings(void)
{
	if (!has_read_settings || reloads_noted != pg_atomic_read_u32(&ts_shared->reloads))
		ConfigReloadPending = true;
	return !ConfigReloadPending;
}

/*
 * Is an error due to a full disk or the like?  Then what has failed is worth
 * trying again in a while.
 */
bool
shared_is_shortage(const ErrorData *error)
{
	return ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_INSUFFICIENT_RESOURCES;
}

/* Microseconds that pass whatever is done to the clock. */
int64
shared_ticks(void)
{
	instr_time	ticks;

	INSTR_TIME_SET_CURRENT(ticks);
	return (int64) INSTR_TIME_GET_MICROSEC(ticks);
}

/*
 * Was the clock set back, by more than a second, since this process last
 * asked?  Then no time of day that was reckoned from the present, to wait for it
 * or to compare with it, is of use any more.
 */
bool
shared_clock_was_set_back(void)
{
	static bool known = false;
	static int64 offset;
	int64		ticks = shared_ticks();
	int64		offset_now = GetCurrentTimestamp() - ticks;
	bool		set_back = known && offset_now < offset - USECS_PER_SEC;

	/* (what delays us in between makes it look later, not earlier) */
	if (!known || set_back || offset_now > offset)
		offset = offset_now;
	known = true;
	return set_back;
}
