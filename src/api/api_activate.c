/*-------------------------------------------------------------------------
 *
 * api_activate.c
 *		activate(): tasks that came with a copy of a database run in it.
 *
 * A copy that was made within the server keeps its owners.  In another server
 * the OID of a role means some other role, so restored tasks and aliases go to
 * the roles that have the names that their owners had when they were last
 * written.  Those of a name that there is no role for go to a stand-in: an OID
 * that no role has, from the end of the range, where none will be soon.  At
 * an OID further down they could be somebody's one day.  They fail when they are
 * due; activate() called again finds them a role.
 *
 * Who owns a database has not got the privileges of all who have tasks there.
 * If it is a copy of one that somebody else owns, as everybody may make of a
 * template who may create databases, it could have changed what these
 * tasks call.  So who activates must own the original, too, or be able to act as
 * each of them.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "commands/dbcommands.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "api/api.h"

/* Stand-ins are OIDs from here on. */
#define FIRST_STAND_IN	(OID_MAX - 999999)

/* Who has tasks or aliases: a role, by OID and the name that it had. */
typedef struct RestoredKey
{
	Oid			oid;
	NameData	name;
} RestoredKey;

typedef struct RestoredOwner
{
	RestoredKey key;
	Oid			new_owner;
	Oid			stand_in;		/* between the two */
} RestoredOwner;

static bool
activate_is_role(Oid role)
{
	return SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(role));
}

static bool
activate_is_stand_in(Oid owner)
{
	return owner >= FIRST_STAND_IN && !activate_is_role(owner);
}

static void
activate_visit_owner(Oid owner, const NameData *name, void *owners)
{
	RestoredKey key;

	memset(&key, 0, sizeof(key));
	key.oid = owner;
	namestrcpy(&key.name, NameStr(*name));
	(void) hash_search(owners, &key, HASH_ENTER, NULL);
}

/* Compare by name; the one whom the name is most likely to be meant for is the last. */
static int
activate_owner_cmp(const ListCell *a, const ListCell *b)
{
	const RestoredOwner *x = lfirst(a);
	const RestoredOwner *y = lfirst(b);
	int			order = strcmp(NameStr(x->key.name), NameStr(y->key.name));
	bool		x_is_stand_in = activate_is_stand_in(x->key.oid);

	if (order != 0)
		return order;
	if (x_is_stand_in != activate_is_stand_in(y->key.oid))
		return x_is_stand_in ? -1 : 1;
	/* of roles that have had a name one after the other it is the latest */
	return (x->key.oid > y->key.oid) - (x->key.oid < y->key.oid);
}

/* Return all who have tasks or aliases here, in that order. */
static List *
activate_owners(Store *store)
{
	HASHCTL		control = {
		.keysize = sizeof(RestoredKey),
		.entrysize = sizeof(RestoredOwner),
		.hcxt = CurrentMemoryContext
	};
	HTAB	   *owners = hash_create("taskshed owners", 64, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TupleTableSlot *slot = table_slot_create(store->task, NULL);
	TableScanDesc scan = compat_table_beginscan(store->task, snapshot);
	HASH_SEQ_STATUS status;
	RestoredOwner *owner;
	List	   *list = NIL;

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;

		CHECK_FOR_INTERRUPTS();
		activate_visit_owner(DatumGetObjectId(slot_getattr(slot, Anum_task_owner, &isnull)),
							 DatumGetName(slot_getattr(slot, Anum_task_owner_name, &isnull)),
							 owners);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	alias_visit_owners(activate_visit_owner, owners);

	hash_seq_init(&status, owners);
	while ((owner = hash_seq_search(&status)) != NULL)
		list = lappend(list, owner);
	list_sort(list, activate_owner_cmp);
	return list;
}

/*
 * Give tasks and aliases to another owner, their names as they are.  Return how
 * many that one has others of the same name for, which stay.
 */
static int
activate_move(Store *store, Oid owner, const NameData *name, Oid new_owner)
{
	int			left = alias_move(owner, name, new_owner, NULL);
	int			n;
	int64	   *ids = store_find_owned(store, owner, &n);

	for (int i = 0; i < n; i++)
	{
		TaskRow		task;
		TaskRow		other;
		AlarmRow	alarm;

		CHECK_FOR_INTERRUPTS();
		if (store_lock_alarm(store, ids[i], &alarm, LockWaitBlock) != TM_Ok ||
			!store_get_task(store, ids[i], &task) ||
			ROW_GET(ObjectId, &task, task_owner) != owner ||
			namestrcmp(ROW_GET(Name, &task, task_owner_name), NameStr(*name)) != 0)
			continue;
		if (store_find_task(store, new_owner, ROW_DATUM(&task, task_task_id), &other))
		{
			left++;
			continue;
		}
		ROW_SET(ObjectId, &task, task_owner, new_owner);
		store_update_task(store, &task);
		ROW_SET(ObjectId, &alarm, alarm_owner, new_owner);
		store_update_alarm(store, &alarm);
	}
	CommandCounterIncrement();
	return left;
}

/* Return the next stand-in that nobody has. */
static Oid
activate_next_stand_in(List *owners, Oid last)
{
	bool		used;

	do
	{
		ListCell   *lc;

		last--;
		used = activate_is_role(last);
		foreach(lc, owners)
			used = used || ((RestoredOwner *) lfirst(lc))->key.oid == last;
	} while (used);
	return last;
}

/*
 * Decide who is to have what came with a dump, or only what has a stand-in.
 * Return those whose owner changes.
 */
static List *
activate_decide(List *owners, bool stand_ins_only)
{
	List	   *moves = NIL;
	Oid			stand_in = OID_MAX;

	for (int i = 0; i < list_length(owners); i++)
	{
		RestoredOwner *owner = list_nth(owners, i);
		const char *name = NameStr(owner->key.name);
		Oid			role = get_role_oid(name, true);
		bool		has_stand_in = activate_is_stand_in(owner->key.oid);
		bool		is_last = true;

		/* scheduled here, or the same role in both */
		if (owner->key.oid == role || (stand_ins_only && !has_stand_in))
			continue;

		for (int j = i + 1; j < list_length(owners) && is_last; j++)
		{
			const RestoredOwner *next = list_nth(owners, j);

			if (strcmp(NameStr(next->key.name), name) != 0)
				break;
			is_last = (next->key.oid == role && !stand_ins_only);
		}
		/* later, who has come to have that name may be anybody */
		if (stand_ins_only && OidIsValid(role) && !superuser() &&
			!compat_may_set_role(GetUserId(), role))
			is_last = false;
		if (!has_stand_in)
			stand_in = activate_next_stand_in(owners, stand_in);
		owner->stand_in = has_stand_in ? owner->key.oid : stand_in;
		owner->new_owner = OidIsValid(role) && is_last ? role : owner->stand_in;
		if (owner->new_owner != owner->key.oid)
			moves = lappend(moves, owner);
		if (owner->new_owner != role)
			ereport(WARNING,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 OidIsValid(role) ?
					 errmsg("tasks are left from another role \"%s\"", name) :
					 errmsg("role \"%s\", which has tasks, does not exist", name),
					 errdetail("They fail when they are due."),
					 OidIsValid(role) ?
					 errhint("A superuser can give them to a role: SELECT taskshed.set_owner('role', owner => '%u').",
							 owner->new_owner) :
					 errhint("Create the role and call taskshed.activate() again, or have a superuser give them to another: SELECT taskshed.set_owner('role', owner => '%u').",
							 owner->new_owner)));
	}
	return moves;
}

/*
 * Give tasks and aliases to the roles that have their owners' names.  In two
 * steps, since one's new OID may be another's old one.
 */
static void
activate_adopt(Store *store, bool stand_ins_only)
{
	List	   *moves = activate_decide(activate_owners(store), stand_ins_only);
	ListCell   *lc;

	foreach(lc, moves)
	{
		RestoredOwner *owner = lfirst(lc);

		if (owner->stand_in != owner->key.oid)
			(void) activate_move(store, owner->key.oid, &owner->key.name, owner->stand_in);
	}
	foreach(lc, moves)
	{
		RestoredOwner *owner = lfirst(lc);
		int			left = 0;

		if (owner->new_owner != owner->stand_in)
			left = activate_move(store, owner->stand_in, &owner->key.name, owner->new_owner);
		if (left > 0)
			ereport(WARNING,
					(errcode(ERRCODE_DUPLICATE_OBJECT),
					 errmsg_plural("role \"%2$s\" has a task or alias of the same name as %1$d that was restored",
								   "role \"%2$s\" has tasks or aliases of the same names as %1$d that were restored",
								   left, left, NameStr(owner->key.name)),
					 errdetail("The restored ones are those of owner \"%u\", and fail when they are due.",
							   owner->stand_in),
					 errhint("Remove one of each two and call taskshed.activate() again.")));
	}
}

/* Refuse a user who may not have run here what came with this copy: 42501.  See above. */
static void
activate_check_origin(Store *store, const HomeOrigin *origin)
{
	bool		trusted = origin->known;
	ListCell   *lc;

	foreach(lc, origin->databases)
		trusted = trusted && SearchSysCacheExists1(DATABASEOID, ObjectIdGetDatum(lfirst_oid(lc))) &&
		compat_owns_database(lfirst_oid(lc), GetUserId());
	if (trusted || superuser())
		return;
	foreach(lc, activate_owners(store))
	{
		const RestoredOwner *owner = lfirst(lc);
		Oid			role = origin->other_server ?
		get_role_oid(NameStr(owner->key.name), true) : owner->key.oid;

		if (activate_is_role(role) && !compat_may_set_role(GetUserId(), role))
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("permission denied to activate tasks of role \"%s\"",
							GetUserNameFromId(role, false)),
					 errdetail("Whoever does not own the database that they came from must be able to SET ROLE to their owners."),
					 errhint("Ask a superuser to call taskshed.activate(), or to remove them.")));
	}
}

/*
 * Have all lasting tasks that run after no others run once.  While they were held nobody
 * could ask for that.
 */
static void
activate_ask(Store *store)
{
	LockOrder  *order = lock_order_begin();
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TupleTableSlot *slot = table_slot_create(store->alarm, NULL);
	TableScanDesc scan = compat_table_beginscan(store->alarm, snapshot);
	List	   *ids = NIL;
	ListCell   *lc;

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		TaskRow		task;
		int64	   *id;
		bool		isnull;

		/* what does not wait is due already, or will be at its time */
		CHECK_FOR_INTERRUPTS();
		(void) slot_getattr(slot, Anum_alarm_waiting_since, &isnull);
		if (isnull)
			continue;
		id = palloc(sizeof(int64));
		*id = DatumGetInt64(slot_getattr(slot, Anum_alarm_id, &isnull));
		if (!store_get_task(store, *id, &task) || !task_is_lasting(&task))
			continue;
		ids = lappend(ids, id);
		lock_order_add(order, ROW_GET(ObjectId, &task, task_owner),
					   TextDatumGetCString(ROW_DATUM(&task, task_task_id)), *id);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);

	lock_order_take(order, store);
	foreach(lc, ids)
	{
		int64		id = *(int64 *) lfirst(lc);
		AlarmRow	alarm;
		TaskRow		task;

		if (store_lock_alarm(store, id, &alarm, LockWaitBlock) == TM_Ok &&
			!ROW_IS_TRUE(&alarm, alarm_follows) && ROW_ISNULL(&alarm, alarm_failed_at) &&
			store_get_task(store, id, &task) && task_is_lasting(&task))
			once_more_ask(store, &alarm, &task);
	}
}

PG_FUNCTION_INFO_V1(ts_activate);
Datum
ts_activate(PG_FUNCTION_ARGS)
{
	HomeOrigin	origin = {0};
	HomeState	state;
	Store	   *store;

	check_writable("taskshed.activate()");
	if (!compat_owns_database(MyDatabaseId, GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of database %s", get_database_name(MyDatabaseId))));

	/* Home first, or two of us may wait for each other. */
	copies_lock();
	store = store_open(RowExclusiveLock);
	state = copies_state(store, &origin);
	if (home_is_held(state))
	{
		activate_check_origin(store, &origin);
		if (origin.other_server)
		{
			/* while nobody adds what might be in the way */
			LockRelation(store->task, ShareRowExclusiveLock);
			activate_adopt(store, false);
		}
		activate_ask(store);
		copies_settle();
	}
	else
		activate_adopt(store, true);
	notes_reread();
	store_close(store, NoLock);
	check_warn_if_waiting();
	PG_RETURN_VOID();
}
