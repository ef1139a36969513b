/*-------------------------------------------------------------------------
 *
 * fair_share.c
 *		Which database gets what room there is for processes.
 *
 * The launcher's part of fairness; the scheduler's, among the roles of one
 * database, is in worker_limits.c.  All our processes share the server's
 * max_worker_processes with others.  When room is short, no database is to
 * wait for another one's callbacks.  A database that has workers gets no more
 * of them before each of the others can have one.  An idle worker leaves when
 * there is a use for its place, and a busy one after its run, if it is of the
 * database that has most; where there are more databases than places, they
 * take turns.
 *
 * A scheduler is of use with a worker, so a database comes in when there is room
 * for both.  If there is not, a scheduler with nothing to do for some seconds
 * leaves; or, if all have something to do all the time, the one that has been
 * there longest, with its workers.  While a database is asleep such room is kept
 * from becoming that of second workers.
 *
 * Everything here belongs to the launcher's process and is looked up afresh in
 * shared memory in each of its rounds.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "launcher/launcher.h"

/* A busy worker, or scheduler, is asked to leave at most this often (us). */
#define EVICTION_INTERVAL	USECS_PER_SEC

/* The log says at most this often (us) that there is no room. */
#define COMPLAINT_INTERVAL	(60 * USECS_PER_SEC)

/* A scheduler waits for its first worker's turn at most this long (us). */
#define LONG_TURN			(5 * USECS_PER_SEC)

/* A scheduler that has nothing to do for so long (us) leaves for others. */
#define QUIET				(IDLE_EXIT_LEAD + USECS_PER_SEC)

/* What fair_share_look has found. */
static SlotView *slots;
static int	nschedulers;
static int	nworkers;			/* those who are leaving included */
static List *served = NIL;		/* databases that need at least one worker */
static List *working = NIL;		/* of these, those that have something to do */
static int	nleaving;			/* schedulers that are, for others */
static bool any_away;			/* databases whose schedulers are */
static bool full;				/* the server has no slot for us any more */

/* When a busy worker, and scheduler, was asked to leave, and when the log has said so. */
static TimestampTz evicted_at = 0;
static TimestampTz dismissed_at = 0;
static TimestampTz complained_at = 0;

/* Prepare, once a launcher. */
void
fair_share_init(void)
{
	slots = MemoryContextAllocZero(TopMemoryContext, ts_shared->nslots * sizeof(SlotView));
}

/* Return what was last seen of a worker's slot. */
const SlotView *
fair_share_get(int i)
{
	return &slots[i];
}

/*
 * Look at how the room that there is is used.  That is known from shared
 * memory: an earlier launcher may have started some of the processes.
 */
void
fair_share_look(void)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	TimestampTz now = GetCurrentTimestamp();

	nschedulers = nworkers = nleaving = 0;
	full = any_away = false;
	list_free(served);
	list_free(working);
	served = working = NIL;
	/* the schedulers */
	for (int i = 0; i < TS_MAX_DATABASES; i++)
	{
		TsDatabase *db = &ts_shared->databases[i];
		TsDatabaseState state;
		Oid			database;
		bool		away;
		bool		needs_worker;
		bool		between;
		bool		resting;
		bool		leaving;

		SpinLockAcquire(&db->mutex);
		state = db->state;
		database = db->oid;
		/* (a scheduler that is asleep may not have ended yet) */
		away = (state == TS_DB_WANTED || state == TS_DB_ASLEEP) && db->scheduler == NULL;
		needs_worker = (state == TS_DB_RUNNING && !db->disabled && !db->held);
		/* its scheduler has a place, but is not there yet, or about to leave */
		between = (state == TS_DB_STARTING || (state == TS_DB_ASLEEP && db->scheduler != NULL));
		resting = db->resting;
		leaving = (db->scheduler != NULL && (db->give_way != TS_STAY || state == TS_DB_ASLEEP));
		if (db->scheduler != NULL || state == TS_DB_STARTING)
			nschedulers++;
		SpinLockRelease(&db->mutex);
		any_away = any_away || away;
		if (leaving)
			nleaving++;
		if (needs_worker || between)
			served = lappend_oid(served, database);
		if (state == TS_DB_STARTING || (needs_worker && !resting))
			working = lappend_oid(working, database);
	}
	/* the workers */
	for (int i = 0; i < ts_shared->nslots; i++)
	{
		SlotView   *slot = &slots[i];

		slot_look(i, slot);
		/* one that was started for a task is about to get it */
		if (slot->serial == 0 && now - slot->since < PROCESS_TURN)
			slot->idle = false;
		if (slot->state == TS_WORKER_STARTING || slot->state == TS_WORKER_READY)
			nworkers++;
	}
	MemoryContextSwitchTo(old);
}

/* Return for how many processes more there is room. */
static int
fair_share_room(void)
{
	if (full)
		return 0;
	return max_worker_processes - TS_SLOTS_LEFT_FREE - 1 - nschedulers - nworkers;
}

/*
 * Count the workers of a database, of all roles or of one.  Those that are
 * leaving have their places until their runs are over.
 */
static int
fair_share_count_workers(Oid database, Oid role)
{
	int			n = 0;

	for (int i = 0; i < ts_shared->nslots; i++)
	{
		const SlotView *slot = &slots[i];

		if ((slot->state == TS_WORKER_STARTING || slot->state == TS_WORKER_READY) &&
			slot->database == database && (!OidIsValid(role) || slot->role == role))
			n++;
	}
	return n;
}

/* Count those of them that are leaving. */
static int
fair_share_count_leaving(Oid database)
{
	int			n = 0;

	for (int i = 0; i < ts_shared->nslots; i++)
	{
		if (slots[i].state == TS_WORKER_READY && slots[i].leaving &&
			slots[i].database == database)
			n++;
	}
	return n;
}

/* Count those of these databases that have no worker, but not the one named. */
static int
fair_share_count_unserved(const List *databases, Oid but)
{
	ListCell   *lc;
	int			n = 0;

	foreach(lc, databases)
	{
		if (lfirst_oid(lc) != but && fair_share_count_workers(lfirst_oid(lc), InvalidOid) == 0)
			n++;
	}
	return n;
}

/*
 * Return how many places are kept from a database that has a worker: one for
 * each that has none, and two if some have no scheduler.
 */
static int
fair_share_kept(Oid database)
{
	return fair_share_count_unserved(served, database) + (any_away ? 2 : 0);
}

/*
 * Return whether there is room for a worker of a database.  Its first can have
 * any place; further ones leave those that are kept for others.
 */
bool
fair_share_room_for_worker(Oid database)
{
	int			kept = 0;

	if (fair_share_count_workers(database, InvalidOid) > 0)
		kept = fair_share_kept(database);
	return fair_share_room() > kept;
}

/*
 * Return whether there is room for one scheduler more, and for a worker of its
 * database, beside those that others need.  The only one there is can have the
 * last place.
 */
bool
fair_share_room_for_scheduler(void)
{
	return fair_share_room() >
		(nschedulers == 0 ? 0 : 1 + fair_share_count_unserved(working, InvalidOid));
}

/*
 * Return whether a worker of that database could be started in the place of
 * this one.  Only a database without any may have the place of another's last.
 */
static bool
fair_share_would_help(const SlotView *slot, Oid database)
{
	int			n = fair_share_count_workers(database, InvalidOid);
	int			kept = fair_share_kept(database);

	if (slot->database == database)
		n--;
	else if (fair_share_count_workers(slot->database, InvalidOid) == 1)
		kept++;
	return fair_share_room() + 1 > (n > 0 ? kept : 0);
}

/*
 * Choose the worker whose place a database and role may have: an idle one; or,
 * if busy ones are asked for, one of the database that has most; or, for those
 * that have none at all, the one that has been there longest, if it has had its
 * turn.  Return -1 if there is none.  For a scheduler, role is InvalidOid: it
 * needs two places, and those of workers that are the only ones of their
 * databases would not help it.
 */
static int
fair_share_choose_victim(Oid database, Oid role, bool busy)
{
	TimestampTz now = GetCurrentTimestamp();
	int			nown = fair_share_count_workers(database, InvalidOid);
	bool		none = (nown == 0 || fair_share_count_workers(database, role) == 0);
	int			most = nown + 1;
	int			richest = -1;
	int			oldest = -1;

	for (int i = 0; i < ts_shared->nslots; i++)
	{
		const SlotView *slot = &slots[i];
		int			n;

		if (slot->state != TS_WORKER_READY || slot->leaving || slot->idle == busy ||
			(slot->database == database && slot->role == role) ||
			!fair_share_would_help(slot, database))
			continue;
		if (slot->idle)
			return i;
		n = fair_share_count_workers(slot->database, InvalidOid) -
			fair_share_count_leaving(slot->database);
		if (slot->database != database &&
			(n > most || (n == most && richest >= 0 &&
						  slot->running_since > slots[richest].running_since)))
		{
			most = n;
			richest = i;
		}
		if (none && OidIsValid(role) && now - slot->since >= PROCESS_TURN && (slot->database == database || nown == 0) &&
			(oldest < 0 || slot->since < slots[oldest].since))
			oldest = i;
	}
	return richest >= 0 ? richest : oldest;
}

/*
 * Choose the scheduler whose place another database may have: of those that
 * have nothing to do the one that will have nothing for longest; or, if busy
 * ones are asked for, the one that has been there longest, if it has had its
 * turn.  A turn begins when it has a worker, which may take a while.  Return -1
 * if there is none.
 */
static int
fair_share_choose_scheduler(Oid database, bool busy)
{
	TimestampTz now = GetCurrentTimestamp();
	int			victim = -1;
	TimestampTz best = busy ? DT_NOEND : DT_NOBEGIN;

	for (int i = 0; i < TS_MAX_DATABASES; i++)
	{
		TsDatabase *db = &ts_shared->databases[i];
		bool		there;
		bool		resting;
		Oid			oid;
		TimestampTz since;
		TimestampTz next_wakeup;
		bool		had_turn;

		SpinLockAcquire(&db->mutex);
		there = (db->state == TS_DB_RUNNING && db->give_way == TS_STAY);
		resting = db->resting;
		oid = db->oid;
		since = db->since;
		next_wakeup = db->next_wakeup;
		SpinLockRelease(&db->mutex);
		if (!there || oid == database)
			continue;
		if (!busy && resting && next_wakeup > now + QUIET && next_wakeup > best)
		{
			victim = i;
			best = next_wakeup;
		}
		had_turn = (now - since >= LONG_TURN || now < since);
		for (int j = 0; busy && !had_turn && j < ts_shared->nslots; j++)
		{
			had_turn = (slots[j].state == TS_WORKER_READY && slots[j].database == oid &&
						now - Max(slots[j].since, since) >= PROCESS_TURN);
		}
		if (busy && had_turn && since < best)
		{
			victim = i;
			best = since;
		}
	}
	return victim;
}

/*
 * Ask a scheduler to leave for one of another database.  Return whether there
 * is one.
 */
static bool
fair_share_dismiss_scheduler(Oid database, bool busy)
{
	int			i = fair_share_choose_scheduler(database, busy);
	TsDatabase *db;
	Oid			victim;

	if (i < 0)
		return false;
	db = &ts_shared->databases[i];
	SpinLockAcquire(&db->mutex);
	victim = db->oid;
	if (db->state == TS_DB_RUNNING)
		db->give_way = busy ? TS_GIVE_WAY : TS_GIVE_WAY_IDLE;
	SpinLockRelease(&db->mutex);
	ts_debug(DEBUG1, "launcher asks the scheduler of database %u to leave for database %u", victim, database);
	database_wake_scheduler(db);
	return true;
}

/*
 * Ask a worker to leave whose place another database or role can make use of.
 * Busy ones are asked one at a time, since their runs may take long.  For the
 * first worker of a database, a scheduler that is not needed can leave as well.
 * Return whether a place will be free at once.
 */
bool
fair_share_make_room(Oid database, Oid role)
{
	TimestampTz now = GetCurrentTimestamp();
	int			victim;

	for (int i = 0; i < ts_shared->nslots; i++)
	{
		if (slots[i].idle && slots[i].leaving)
			return true;
	}
	victim = fair_share_choose_victim(database, role, false);
	if (victim < 0 && OidIsValid(role) && fair_share_count_workers(database, InvalidOid) == 0 &&
		(nleaving > 0 || fair_share_dismiss_scheduler(database, false)))
		return true;
	if (victim < 0 && now - evicted_at >= EVICTION_INTERVAL)
	{
		victim = fair_share_choose_victim(database, role, true);
		evicted_at = now;
	}
	if (victim < 0)
		return false;

	if (!slot_send_away(victim, slots[victim].generation, slots[victim].idle))
		return false;
	ts_debug(DEBUG1, "launcher sends a worker of role %u in database %u away: its place is for database %u",
			 slots[victim].role, slots[victim].database, database);
	slots[victim].leaving = true;
	return slots[victim].idle;
}

/* Ask somebody to leave for a scheduler of a database. */
void
fair_share_make_room_for_scheduler(Oid database)
{
	TimestampTz now = GetCurrentTimestamp();

	if (nleaving > 0)
	{
		nleaving--;				/* it has its place, if nobody else needs it */
		return;
	}
	if (fair_share_dismiss_scheduler(database, false) ||
		(nworkers > 1 && fair_share_make_room(database, InvalidOid)))
		return;
	/* a busy worker that could leave is asked to, once a second */
	if (nworkers > 1 && fair_share_choose_victim(database, InvalidOid, true) >= 0)
		return;
	if (now - dismissed_at >= EVICTION_INTERVAL && fair_share_dismiss_scheduler(database, true))
		dismissed_at = now;
}

/* Say in the log that something waits for room, if that was not just said. */
void
fair_share_complain(void)
{
	TimestampTz now = GetCurrentTimestamp();

	if (now - complained_at < COMPLAINT_INTERVAL)
		return;
	complained_at = now;
	ereport(LOG,
			(errmsg("taskshed has no room for another process"),
			 full ?
			 errdetail("It has %d, and others use the rest of max_worker_processes = %d.",
					   1 + nschedulers + nworkers, max_worker_processes) :
			 errdetail("It has %d, keeps %d for databases without a worker, and leaves %d of max_worker_processes = %d to others.",
					   1 + nschedulers + nworkers, Max(fair_share_room(), 0),
					   TS_SLOTS_LEFT_FREE, max_worker_processes),
			 errhint("Increase max_worker_processes, or lower taskshed.max_workers.")));
}

/*
 * Choose the slot whose worker is to be started next: that of the database that
 * has fewest, of its role that has fewest, and of those that are alike the one
 * that was asked for first.  Those to be skipped are marked.  Return -1 if
 * there is none.
 */
int
fair_share_choose_asked(const bool *skip)
{
	int			best = -1;
	int			best_database = 0;
	int			best_role = 0;

	for (int i = 0; i < ts_shared->nslots; i++)
	{
		const SlotView *slot = &slots[i];
		int			database;
		int			role;

		if (slot->state != TS_WORKER_ASKED || skip[i])
			continue;
		database = fair_share_count_workers(slot->database, InvalidOid);
		role = fair_share_count_workers(slot->database, slot->role);
		if (best < 0 || database < best_database ||
			(database == best_database &&
			 (role < best_role || (role == best_role && slot->since < slots[best].since))))
		{
			best = i;
			best_database = database;
			best_role = role;
		}
	}
	return best;
}

/* Count a scheduler that has been started. */
void
fair_share_count_scheduler(Oid database)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	nschedulers++;
	working = lappend_oid(working, database);
	MemoryContextSwitchTo(old);
}

/* Count the worker of that slot, which has been started. */
void
fair_share_count_worker(int i)
{
	slots[i].state = TS_WORKER_STARTING;
	nworkers++;
}

/* Forget the wish for the worker of that slot. */
void
fair_share_drop(int i)
{
	slots[i].state = TS_WORKER_FREE;
}

/* Remember that the server has no slot left, as it has said. */
void
fair_share_set_full(void)
{
	full = true;
}

/* Forget when things were done last, since the clock was set back. */
void
fair_share_start_anew(void)
{
	evicted_at = dismissed_at = complained_at = 0;
}
