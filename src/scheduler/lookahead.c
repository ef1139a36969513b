/*-------------------------------------------------------------------------
 *
 * lookahead.c
 *		The scheduler's memory of what is due next.
 *
 * For each role the scheduler keeps the beginning of its queue in memory: all
 * tasks up to a frontier, read from the table in batches as they are used up.
 * Once the last batch came back short, everything has been read and all that
 * is added later is known from the notes that commits leave.  A note of a
 * task behind the frontier is dropped: reading will come to it.  To go back
 * with the frontier therefore means to forget what is waiting behind it,
 * which may no longer be as it was read.
 *
 * A task is known here at most once.  It waits in its role's heap or has been
 * handed to a worker; while it is handed out, whatever is read or noted of it
 * only marks it as changed.  When its worker reports, it goes back to waiting
 * for its next time, is looked up in the table again, or is forgotten.
 *
 * Nothing here is a promise that a task will run: the worker reads the row
 * and decides.  It is enough that every task that is due is known here, and
 * that none is handed out twice.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "scheduler/scheduler.h"

/*
 * A role's queue is read in batches of this many, again when this few are
 * left, and cut back when notes have made it this long.
 */
#define BATCH_SIZE	1024
#define LOW_WATER	256
#define HIGH_WATER	8192

static HTAB *tasks = NULL;

/* Ids to be looked up in the table, and not before when. */
typedef struct Look
{
	int64		id;
	TimestampTz not_before;
} Look;

static Look *looks = NULL;
static int	nlooks = 0;
static int	max_looks = 0;

/* By slot: a task that was handed to its worker ahead of its time may be due sooner. */
static bool *recalled = NULL;

/* Begin, once a scheduler.  All that follows lives as long as the process. */
void
lookahead_start(void)
{
	HASHCTL		ctl = {.keysize = sizeof(int64),.entrysize = sizeof(LookaheadTask)};

	tasks = hash_create("taskshed tasks", BATCH_SIZE, &ctl, HASH_ELEM | HASH_BLOBS);
	recalled = MemoryContextAllocZero(TopMemoryContext, ts_shared->nslots * sizeof(bool));
}

/* How many tasks are marked as changed. */
static int	nchanged = 0;

/* Have a task that is handed out be looked up when its worker reports. */
static void
lookahead_mark_changed(LookaheadTask *task)
{
	Assert(task->slot >= 0);
	if (!task->changed)
		nchanged++;
	task->changed = true;
}

/*
 * Return whether a report may be waited for, since it brings back a task that was
 * changed.
 */
bool
lookahead_has_changed(void)
{
	return nchanged > 0;
}

/*
 * Return whether what the worker in a slot has not begun is to be taken back, since one
 * of these tasks may be due sooner than it was.  Asked once.
 */
bool
lookahead_take_recall(int slot)
{
	bool		recall = recalled[slot];

	recalled[slot] = false;
	return recall;
}

/* Forget a task, whether it waits or was handed out. */
static void
lookahead_forget(LookaheadTask *task)
{
	if (task->changed)
		nchanged--;
	if (task->slot < 0)
		task_queue_remove(task);
	hash_search(tasks, &task->id, HASH_REMOVE, NULL);
}

/*
 * Forget all that is waiting and go back with the frontier, so that it is read
 * again.  Only until when a task has been put off is not to be found in the
 * table.
 */
static void
lookahead_cut_back(TaskQueue *queue)
{
	TimestampTz now = GetCurrentTimestamp();
	List	   *kept = NIL;
	ListCell   *lc;

	while (queue->nwaiting > 0)
	{
		LookaheadTask *task = task_queue_first(queue);
		QueueKey	before = {task->run_at, task->id - 1};

		if (task->key.run_at > task->run_at && task->key.run_at > now)
		{
			task_queue_remove(task);
			kept = lappend(kept, task);
			continue;
		}
		if (queue_key_cmp(&before, &queue->frontier) < 0 || queue->read_all)
			queue->frontier = before;
		queue->read_all = false;
		lookahead_forget(task);
	}

	foreach(lc, kept)
	{
		task_queue_add(queue, lfirst(lc));
	}
	list_free(kept);
}

/*
 * Have a task wait for its time, or for a later one if that is not to be
 * before.
 */
static LookaheadTask *
lookahead_add(TaskQueue *queue, const QueueEntry *entry, TimestampTz not_before)
{
	const QueueKey *key = &entry->key;
	bool		found;
	LookaheadTask *task = hash_search(tasks, &key->id, HASH_ENTER, &found);

	Assert(!found);
	task->key = *key;
	task->key.run_at = Max(key->run_at, not_before);
	task->run_at = key->run_at;
	task->slot = -1;
	task->changed = false;
	task->interruptions = entry->interruptions;
	task->alarm_tid = entry->alarm_tid;
	task_queue_add(queue, task);
	return task;
}

/*
 * Go back to an earlier time in all queues, those of roles that are new here
 * included.
 */
void
lookahead_reread(Store *store, Snapshot snapshot, TimestampTz from)
{
	QueueKey	key = {from, PG_INT64_MIN};
	Oid			owner = InvalidOid;
	TimestampTz now = GetCurrentTimestamp();
	HASH_SEQ_STATUS scan;
	LookaheadTask *task;
	Role	   *role;

	while (OidIsValid(owner = queue_next_owner(store, snapshot, owner)))
		(void) known_roles_get(owner);

	/* those that are handed out may be among what was changed, too */
	hash_seq_init(&scan, tasks);
	while ((task = hash_seq_search(&scan)) != NULL)
	{
		if (task->slot >= 0)
			lookahead_mark_changed(task);
		if (task->slot >= 0 && task->key.run_at > Max(now, from))
			recalled[task->slot] = true;
	}
	for (role = known_roles_next(true); role != NULL; role = known_roles_next(false))
	{
		TaskQueue  *queue = &role->queue;

		if (task_queue_covers(queue, &key))
		{
			lookahead_cut_back(queue);
			if (task_queue_covers(queue, &key))
				queue->frontier = key;
			queue->read_all = false;
		}
	}
}

/*
 * Return whether a row stands for a task that can run.  One that was written
 * by hand may have no role, which to a worker would mean a superuser, or an id
 * like those that stand for no task.
 */
static bool
lookahead_may_run(Oid owner, int64 id)
{
	return OidIsValid(owner) && id > 0;
}

/* Look a task up and have it wait for its time, if it has one. */
static void
lookahead_look(Store *store, int64 id, TimestampTz not_before)
{
	LookaheadTask *task = lookahead_find(id);
	AlarmRow	alarm;
	QueueEntry	entry;
	TaskQueue  *queue;

	Assert(task == NULL || task->slot < 0);
	if (task != NULL)
		lookahead_forget(task);
	if (!store_get_alarm(store, id, &alarm) || !alarm_is_queued(&alarm) ||
		!lookahead_may_run(ROW_GET(ObjectId, &alarm, alarm_owner), id))
		return;

	queue = &known_roles_get(ROW_GET(ObjectId, &alarm, alarm_owner))->queue;
	entry.key.run_at = ROW_GET(TimestampTz, &alarm, alarm_run_at);
	entry.key.id = id;
	entry.interruptions = ROW_GET(Int32, &alarm, alarm_interruptions);
	entry.alarm_tid = alarm.tid;
	/* that a task is not to run before some time must not be forgotten */
	if (not_before > entry.key.run_at || task_queue_covers(queue, &entry.key))
	{
		(void) lookahead_add(queue, &entry, not_before);
		if (queue->nwaiting > HIGH_WATER)
			lookahead_cut_back(queue);
	}
}

/* Take notice of a task that somebody has scheduled or changed. */
void
lookahead_note(Store *store, const TsNote *note)
{
	LookaheadTask *task = lookahead_find(note->id);
	QueueKey	key = {note->run_at, note->id};

	if (!lookahead_may_run(note->owner, note->id))
		return;
	if (task != NULL && task->slot >= 0)
	{
		lookahead_mark_changed(task);
		if (note->run_at < task->key.run_at)
			recalled[task->slot] = true;
	}
	else if (task != NULL || task_queue_covers(&known_roles_get(note->owner)->queue, &key))
		lookahead_look(store, note->id, DT_NOBEGIN);
}

/* Have a task be looked up in the table, and run not before some time. */
void
lookahead_look_later(int64 id, TimestampTz not_before)
{
	if (nlooks == max_looks)
	{
		max_looks = Max(64, 2 * max_looks);
		looks = looks == NULL ? MemoryContextAlloc(TopMemoryContext, max_looks * sizeof(Look)) :
			repalloc(looks, max_looks * sizeof(Look));
	}
	looks[nlooks].id = id;
	looks[nlooks].not_before = not_before;
	nlooks++;
}

/* Return whether it is time to read the next batch of a queue. */
static bool
lookahead_is_low(const TaskQueue *queue)
{
	return !queue->read_all && queue->nwaiting < LOW_WATER;
}

/* Return whether there is anything to be read from the tables. */
bool
lookahead_wants_reading(void)
{
	Role	   *role;
	bool		wants = (nlooks > 0);

	for (role = known_roles_next(true); role != NULL; role = known_roles_next(false))
		wants = wants || lookahead_is_low(&role->queue);
	return wants;
}

/* Read the next batch of a queue. */
static void
lookahead_refill(Store *store, Snapshot snapshot, TaskQueue *queue)
{
	QueueEntry *entries = palloc(BATCH_SIZE * sizeof(QueueEntry));
	int			n = queue_read(store, snapshot, queue->role->oid, &queue->frontier,
							   entries, BATCH_SIZE);

	for (int i = 0; i < n; i++)
	{
		LookaheadTask *task = lookahead_find(entries[i].key.id);

		if (task != NULL)		/* that was adopted, for one */
			task->interruptions = entries[i].interruptions;
		else if (lookahead_may_run(queue->role->oid, entries[i].key.id))
			(void) lookahead_add(queue, &entries[i], DT_NOBEGIN);
	}
	if (n > 0)
		queue->frontier = entries[n - 1].key;
	if (n < BATCH_SIZE)
		queue->read_all = true;
	pfree(entries);
}

/* Read what lookahead_wants_reading has asked for. */
void
lookahead_read(Store *store, Snapshot snapshot)
{
	Role	   *role;

	for (int i = 0; i < nlooks; i++)
	{
		LookaheadTask *task = lookahead_find(looks[i].id);

		if (task == NULL || task->slot < 0)
			lookahead_look(store, looks[i].id, looks[i].not_before);
	}
	nlooks = 0;

	for (role = known_roles_next(true); role != NULL; role = known_roles_next(false))
	{
		while (lookahead_is_low(&role->queue))
			lookahead_refill(store, snapshot, &role->queue);
	}
}

/* Return the next task of a role, or NULL. */
LookaheadTask *
lookahead_first(Role *role)
{
	return task_queue_first(&role->queue);
}

/* Return a task that is known, waiting or handed out, or NULL. */
LookaheadTask *
lookahead_find(int64 id)
{
	return hash_search(tasks, &id, HASH_FIND, NULL);
}

/*
 * Return whether nothing is going on, and nothing is to be read.  What is due
 * keeps the scheduler, unless all tasks wait or those of its role have to.
 * Say whether there are any tasks, and any of a role whose tasks have to wait.
 */
bool
lookahead_is_calm(bool waits, TimestampTz now, bool *empty, bool *locked_out)
{
	HASH_SEQ_STATUS scan;
	LookaheadTask *task;
	bool		calm = true;

	*empty = true;
	*locked_out = false;
	if (lookahead_wants_reading())
		return false;
	hash_seq_init(&scan, tasks);
	while ((task = hash_seq_search(&scan)) != NULL)
	{
		RoleState	state = task->queue->role->state;

		*empty = false;
		if (task->slot >= 0)
			calm = false;
		else if (waits)
			continue;
		else if (state != ROLE_OK && state != ROLE_GONE)
			*locked_out = true;
		else if (task->run_at <= now)
			calm = false;
	}
	return calm;
}

/* Count the tasks that are known and waiting though due. */
int
lookahead_count_due(TimestampTz now, TimestampTz *oldest)
{
	HASH_SEQ_STATUS scan;
	LookaheadTask *task;
	int			n = 0;

	*oldest = DT_NOEND;
	hash_seq_init(&scan, tasks);
	while ((task = hash_seq_search(&scan)) != NULL)
	{
		if (task->slot < 0 && task->key.run_at <= now)
		{
			n++;
			*oldest = Min(*oldest, task->key.run_at);
		}
	}
	return n;
}

/* Take note that a waiting task goes to the worker in that slot. */
void
lookahead_hand_out(LookaheadTask *task, int slot, TimestampTz now)
{
	Assert(task->slot < 0 && slot >= 0);
	task_queue_remove(task);
	task->slot = slot;
	task->handed_at = now;
	if (task->changed)
		nchanged--;
	task->changed = false;
}

/*
 * Return whether a task has to wait because it may be to blame for a crash.
 *
 * A task that was interrupted more than once in a row, or whose next
 * interruption is its last, runs beside no other that was interrupted: when
 * the server crashes again, it is known which of them it was.  One that has
 * been running for a while keeps nobody waiting.  Those that were interrupted
 * once are most often all innocent, and run together.
 */
bool
lookahead_must_wait(LookaheadTask *task, TimestampTz now)
{
	HASH_SEQ_STATUS scan;
	LookaheadTask *other;
	bool		wait = false;

	if (task->interruptions == 0)
		return false;
	hash_seq_init(&scan, tasks);
	while ((other = hash_seq_search(&scan)) != NULL)
	{
		int			most = Max(task->interruptions, other->interruptions);

		if (other->slot >= 0 && other->interruptions > 0 &&
			(most > 1 || most + 1 >= ts_max_interruptions) &&
			now - other->handed_at < TS_SUSPECT_WATCH)
			wait = true;
	}
	return wait;
}

/* Have a waiting task wait until a later time. */
void
lookahead_put_off(LookaheadTask *task, TimestampTz until)
{
	task_queue_remove(task);
	task->key.run_at = until;
	task_queue_add(task->queue, task);
}

/*
 * Have a task wait again that was handed out and has not been started; or be looked up
 * first, if it was changed meanwhile.
 */
void
lookahead_take_back(LookaheadTask *task)
{
	Assert(task->slot >= 0);
	if (task->changed)
	{
		lookahead_look_later(task->id, DT_NOBEGIN);
		lookahead_forget(task);
		return;
	}
	task->slot = -1;
	task_queue_add(task->queue, task);
}

/*
 * Have a waiting task be looked up in the table, which may not be as it was
 * read.
 */
void
lookahead_look_again(LookaheadTask *task)
{
	Assert(task->slot < 0);
	lookahead_look_later(task->id, DT_NOBEGIN);
	lookahead_forget(task);
}

/* Take over a task that an earlier scheduler has handed out. */
void
lookahead_adopt(int64 id, Oid owner, int slot)
{
	QueueEntry	entry = {.key = {DT_NOBEGIN, id}};
	LookaheadTask *task = lookahead_find(id);

	ItemPointerSetInvalid(&entry.alarm_tid);
	if (task == NULL)
		task = lookahead_add(&known_roles_get(owner)->queue, &entry, DT_NOBEGIN);
	if (task->slot < 0)
		lookahead_hand_out(task, slot, GetCurrentTimestamp());
}

/* Take note of what a worker says has become of a task. */
void
lookahead_report(const TsReport *report)
{
	LookaheadTask *task = lookahead_find(report->id);
	TaskQueue  *queue;
	QueueEntry	entry = {.key = {report->next_run_at, report->id}};

	if (task == NULL)
		return;
	ItemPointerSetInvalid(&entry.alarm_tid);
	queue = task->queue;
	if (task->changed || report->fate == TS_FATE_LOOK)
		lookahead_look_later(task->id, DT_NOBEGIN);
	lookahead_forget(task);
	if (report->fate == TS_FATE_NEXT && task_queue_covers(queue, &entry.key))
	{
		/* one that is far behind must not be first for ever */
		(void) lookahead_add(queue, &entry, GetCurrentTimestamp());
	}
}

/*
 * Forget what a worker had that is gone.  Whatever it had not reported is
 * looked up again: it may have been done or not.  Not so the task running_id:
 * return whether the worker had that one.  The caller has it looked up when it
 * is written down that it was interrupted.
 */
bool
lookahead_lost_worker(int slot, int64 running_id)
{
	HASH_SEQ_STATUS scan;
	LookaheadTask *task;
	bool		running = false;

	hash_seq_init(&scan, tasks);
	while ((task = hash_seq_search(&scan)) != NULL)
	{
		if (task->slot != slot)
			continue;
		if (task->id == running_id)
			running = true;
		else
			lookahead_look_later(task->id, DT_NOBEGIN);
		/* removing the entry just returned is allowed during a scan */
		lookahead_forget(task);
	}
	return running;
}
